"""Kernels between padded planes and plain layouts, and of nothing but what follows a sum."""

from __future__ import annotations

from typing import Any

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_planes import Grid
from exporters._tvm_planes_tir import zeros
from exporters._tvm_tiles import PARALLEL_MACS

TILE = 8
"""Channels whose cache lines are written together while rows are turned."""


def from_plain(name: str, channels: int, grid: Grid) -> Any:
    """Plain (channels, height, width) → planes, zeros all around."""

    def body(w: _tvm_tir.Writer) -> None:
        plain = w.argument("plain", channels * grid.height * grid.width)
        planes = w.argument("planes", channels * grid.size)
        work = channels * grid.size
        with w.parallel(channels, work >= PARALLEL_MACS) as channel:
            plane = w.fix(channel * grid.size)
            zeros(w, planes, plane, grid.size)
            with w.loop(grid.height) as y:
                source = w.fix((channel * grid.height + y) * grid.width)
                _copy(w, plain, source, planes, plane + grid.at(y, 0), grid.width)

    return _tvm_tir.kernel(name, grid.lanes, body)


def to_plain(name: str, channels: int, grid: Grid) -> Any:
    """Planes → plain (channels, height, width)."""

    def body(w: _tvm_tir.Writer) -> None:
        planes = w.argument("planes", channels * grid.size)
        plain = w.argument("plain", channels * grid.height * grid.width)
        with w.loop(channels) as channel, w.loop(grid.height) as y:
            source = w.fix(channel * grid.size + grid.at(y, 0))
            out = w.fix((channel * grid.height + y) * grid.width)
            _copy(w, planes, source, plain, out, grid.width)

    return _tvm_tir.kernel(name, grid.lanes, body)


def to_rows(name: str, channels: int, grid: Grid) -> Any:
    """Planes → plain (pixels, channels), as a permutation to NHWC asks."""

    def body(w: _tvm_tir.Writer) -> None:
        planes = w.argument("planes", channels * grid.size)
        rows = w.argument("rows", grid.height * grid.width * channels)
        full, rest = divmod(channels, TILE)

        def tile(first: Any, count: int, y: Any) -> None:
            with w.loop(grid.width) as x:
                out = w.fix((y * grid.width + x) * channels + first)
                for channel in range(count):
                    at = (first + channel) * grid.size + grid.at(y, x)
                    w.store_one(rows, out + channel, planes[at])

        with w.loop(grid.height) as y:
            if full:
                with w.loop(full) as index:
                    tile(w.fix(index * TILE), TILE, y)
            if rest:
                tile(full * TILE, rest, y)

    return _tvm_tir.kernel(name, grid.lanes, body)


def values(name: str, channels: int, grid: Grid, after: tuple[After, ...], zeroed: bool) -> Any:
    """Planes → planes, with nothing but ``after`` in between."""

    def body(w: _tvm_tir.Writer) -> None:
        size = channels * grid.size
        source = w.argument("source", size)
        epilogue = Epilogue(w, after, size, channels, planes=True)
        mask = w.argument("mask", grid.vectors * w.lanes) if zeroed else None
        out = w.argument("out", size)
        with w.parallel(channels, size >= PARALLEL_MACS) as channel:
            plane = w.fix(channel * grid.size)
            with w.loop(grid.vectors) as vector:
                at = w.fix(plane + grid.origin + vector * w.lanes)
                value = epilogue.apply(w.load(source, at), at, channel)
                if mask is not None:
                    value = value * w.load(mask, vector * w.lanes)
                w.store(out, at, value)
            end = grid.origin + grid.vectors * w.lanes
            zeros(w, out, plane, grid.origin)
            zeros(w, out, plane + end, grid.size - end)

    return _tvm_tir.kernel(name, grid.lanes, body)


def _copy(w: _tvm_tir.Writer, source: Any, start: Any, target: Any, out: Any, count: int) -> None:
    """Copy ``count`` values by vectors; the last one may overlap its neighbour."""
    if count < w.lanes:
        with w.loop(count) as index:
            w.store_one(target, out + index, source[start + index])
        return
    full = count // w.lanes
    with w.loop(full) as vector:
        at = vector * w.lanes
        w.store(target, out + at, w.load(source, start + at))
    if count % w.lanes:
        last = count - w.lanes
        w.store(target, out + last, w.load(source, start + last))
