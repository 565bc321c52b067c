"""Kernels without sums: between layouts, and of nothing but what follows a sum.

Plain layouts are (channels, height, width) and (height, width, channels); see `_tvm_tiles` for the
blocked one. Conversions run where a network enters or leaves the blocked part: at its heads.
"""

from __future__ import annotations

from typing import Any

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_tiles import PARALLEL_MACS, ceil_div


def to_blocked(name: str, channels: int, pixels: int, lanes: int) -> Any:
    """Plain (channels, pixels) → blocked; unused lanes become zero."""

    def body(w: _tvm_tir.Writer) -> None:
        blocks = ceil_div(channels, lanes)
        plain = w.argument("plain", channels * pixels)
        blocked = w.argument("blocked", blocks * pixels * lanes)

        def block(index: Any, used: int) -> None:
            with w.loop(pixels) as pixel:
                at = (index * pixels + pixel) * lanes
                with w.loop(used) as lane:
                    w.store_one(blocked, at + lane, plain[(index * lanes + lane) * pixels + pixel])
                if used < lanes:
                    with w.loop(lanes - used) as lane:
                        w.store_one(blocked, at + used + lane, w.zero)

        _over_blocks(w, channels, block)

    return _tvm_tir.kernel(name, lanes, body)


def to_planar(name: str, channels: int, pixels: int, lanes: int) -> Any:
    """Blocked → plain (channels, pixels)."""

    def body(w: _tvm_tir.Writer) -> None:
        blocked = w.argument("blocked", ceil_div(channels, lanes) * pixels * lanes)
        plain = w.argument("plain", channels * pixels)

        def block(index: Any, used: int) -> None:
            with w.loop(used) as lane, w.loop(pixels) as pixel:
                value = blocked[(index * pixels + pixel) * lanes + lane]
                w.store_one(plain, (index * lanes + lane) * pixels + pixel, value)

        _over_blocks(w, channels, block)

    return _tvm_tir.kernel(name, lanes, body)


def to_rows(name: str, channels: int, pixels: int, lanes: int) -> Any:
    """Blocked → plain (pixels, channels), as a permutation to NHWC asks."""

    def body(w: _tvm_tir.Writer) -> None:
        blocked = w.argument("blocked", ceil_div(channels, lanes) * pixels * lanes)
        rows = w.argument("rows", pixels * channels)

        def block(index: Any, used: int) -> None:
            with w.loop(pixels) as pixel, w.loop(used) as lane:
                value = blocked[(index * pixels + pixel) * lanes + lane]
                w.store_one(rows, pixel * channels + index * lanes + lane, value)

        _over_blocks(w, channels, block)

    return _tvm_tir.kernel(name, lanes, body)


def values(name: str, channels: int, pixels: int, lanes: int, after: tuple[After, ...]) -> Any:
    """Blocked → blocked, with nothing but ``after`` in between: a sum, a batch-norm, a ReLU."""

    def body(w: _tvm_tir.Writer) -> None:
        blocks = ceil_div(channels, lanes)
        size = blocks * pixels * lanes
        source = w.argument("source", size)
        epilogue = Epilogue(w, after, size, blocks * lanes)
        out = w.argument("out", size)
        with w.parallel(blocks, worthwhile=size >= PARALLEL_MACS) as block, w.loop(pixels) as pixel:
            at = (block * pixels + pixel) * lanes
            w.store(out, at, epilogue.apply(w.load(source, at), at, block * lanes))

    return _tvm_tir.kernel(name, lanes, body)


def _over_blocks(w: _tvm_tir.Writer, channels: int, block: Any) -> None:
    """Write ``block`` for the full blocks in a loop, then for the one that is partly used."""
    full, rest = divmod(channels, w.lanes)
    if full:
        with w.loop(full) as index:
            block(index, w.lanes)
    if rest:
        block(full, rest)
