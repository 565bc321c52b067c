"""Loops that the kernels on padded planes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporters._tvm_planes import Grid
from exporters._tvm_tiles import ceil_div
from exporters._tvm_tir import Writer


def zeros(w: Writer, out: Any, start: Any, count: int) -> None:
    """Write zeros from ``start`` on, whole vectors of them that hold ``count``."""
    with w.loop(ceil_div(count, w.lanes)) as vector:
        w.store(out, start + vector * w.lanes, w.splat(0.0))


def columns(w: Writer, length: int, vectors: int, body: Callable[[Any], None]) -> None:
    """Write ``body(x)`` for tiles of ``vectors`` vectors that cover 0 to ``length``.

    It holds at least one; the last tile overlaps its neighbour where they do not fit.
    """
    tile = vectors * w.lanes
    assert tile <= length, f"a tile of {tile} values in {length}"
    with w.loop(ceil_div(length, tile)) as turn:
        x = turn * tile
        body(x if length % tile == 0 else w.fix(w.minimum(x, length - tile)))


def gaps(w: Writer, buffer: Any, first: Any, grid: Grid) -> None:
    """Zeros between the rows of a plane whose first pixel is at ``first``, and behind the last."""
    with w.loop(grid.height) as y, w.loop(grid.margin) as x:
        w.store_one(buffer, first + y * grid.pitch + grid.width + x, w.zero)
