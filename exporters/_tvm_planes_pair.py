"""Kernel of a pointwise and the depthwise convolution after it, on padded planes of small maps.

A task takes some channels: their expanded planes lie in a scratch buffer that the second-level
cache holds. A tile of pixels is expanded for all of them before the next, so that the inputs'
pixels stay in the first-level cache. Larger maps run in strips, see `_tvm_planes_fused`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporters import _tvm_tir
from exporters._tvm_after import Clip, Epilogue
from exporters._tvm_planes_point import Form, Point, Sums, Weights
from exporters._tvm_planes_tir import gaps, zeros
from exporters._tvm_planes_window import Windowed, Windows
from exporters._tvm_tiles import PARALLEL_MACS, TASKS, ceil_div

SCRATCH_BYTES = 128 * 1024
"""Of the expanded planes of a task: a quarter of a second-level cache."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``first`` is read by ``window`` alone."""

    first: Point
    window: Windowed
    form: Form

    @property
    def able(self) -> bool:
        """Whether the kernel can compute it."""
        grids = (self.window.source, self.window.grid)
        return (
            self.window.inputs == 0
            and all(isinstance(after, Clip) for after in self.first.after)
            and all(grid.pitch >= grid.lanes for grid in grids)
            and self.first.outputs % self.form.rows == 0
            and self.each > 0
        )

    @property
    def each(self) -> int:
        """Groups of outputs that a task takes."""
        room = SCRATCH_BYTES // (4 * self.form.rows * self.first.grid.size)
        return min(room, ceil_div(self.first.outputs // self.form.rows, TASKS))


def kernel(name: str, pair: Pair, sizes: tuple[int, ...]) -> Any:
    """The PrimFunc; ``sizes`` are those of the packed weights of the first convolution.

    Arguments: planes; weights and bias of the first; weights and bias of the window; what its
    `Epilogue` declares; planes.
    """
    lanes = pair.first.grid.lanes
    return _tvm_tir.kernel(name, lanes, lambda w: _PairWriter(w, pair, sizes).write())


class _PairWriter(Windows):
    def __init__(self, w: _tvm_tir.Writer, pair: Pair, sizes: tuple[int, ...]) -> None:
        self.pair, first = pair, pair.first
        size = first.grid.size
        self.source = w.argument("source", first.inputs * size)
        shape = (first.outputs, first.inputs)
        self.first = Weights(w, pair.form, sizes, shape, size, "first")
        self.first_bias = w.argument("first_bias", first.outputs)
        self.first_after = Epilogue(w, first.after, 0, first.outputs, planes=True)
        super().__init__(w, pair.window, declare_image=False)

    def write(self) -> None:
        """One task is some channels."""
        w, pair, grid = self.w, self.pair, self.pair.first.grid
        groups, rows = pair.first.outputs // pair.form.rows, pair.form.rows
        worthwhile = pair.first.macs + pair.window.macs >= PARALLEL_MACS
        with w.parallel(ceil_div(groups, pair.each), worthwhile) as task:
            self.image = w.scratch(pair.each * rows * grid.size)
            count = w.fix(w.share(groups, pair.each, task))
            with w.loop(count * rows) as number:
                plane = w.fix(number * grid.size)
                zeros(w, self.image, plane, grid.origin)
                end = grid.origin + grid.vectors * w.lanes
                zeros(w, self.image, plane + end, grid.size - end)
            self._expand(w.fix(task * pair.each), count)
            with w.loop(count * rows) as number:
                self._clear(number)
                channel = w.fix(task * (pair.each * rows) + number)
                self.plane(channel, number)
                self.finish(channel)

    def _expand(self, first: Any, count: Any) -> None:
        """``count`` groups from ``first`` on, tile by tile of pixels."""
        w, vectors, wide = self.w, self.pair.first.grid.vectors, self.pair.form.vectors
        with w.loop(ceil_div(vectors, wide)) as tile, w.loop(count) as turn:
            start = w.minimum(tile * wide, vectors - wide) * w.lanes
            self._tile(turn, w.fix(first + turn), start)

    def _tile(self, turn: Any, group: Any, start: Any) -> None:
        w, grid, form = self.w, self.pair.first.grid, self.pair.form
        base = w.fix(start + grid.origin)
        sums = Sums(w, form.rows, form.vectors)
        channel = w.fix(group * form.rows)
        sums.set(lambda row, _: w.splat(self.first_bias[channel + row]))
        self.first.write(sums, self.source, base, group)
        for row in range(form.rows):
            there = w.fix((turn * form.rows + row) * grid.size + base)
            for vector in range(form.vectors):
                value = self.first_after.apply(sums.get(row, vector), 0, channel + row)
                w.store(self.image, there + vector * w.lanes, value)

    def _clear(self, number: Any) -> None:
        """Zeros between the rows of an expanded plane, and behind the last one."""
        w, grid = self.w, self.pair.first.grid
        start = w.fix(number * grid.size + grid.origin)
        gaps(w, self.image, start, grid)
        w.store(self.image, start + grid.span, w.splat(0.0))
