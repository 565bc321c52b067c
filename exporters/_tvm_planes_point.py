"""Kernel of pointwise convolutions on padded planes, with dense or sparse weights.

Sparse weights are lists, one for each group of ``rows`` neighbouring outputs: the inputs where the
group has a weight that is not zero, as offsets of planes, and ``rows`` values for each. A
register tile of ``rows`` x ``vectors`` sums goes through the list; each step reads some vectors of
pixels and multiplies them with the values. Dense weights are the same without lists.

Where the planes of all inputs are more than the first-level cache holds, the inputs are taken in
panels: all outputs of a tile of pixels are summed up over one panel before the next is begun.

After Elsen et al. 2020, "Fast Sparse ConvNets" (https://arxiv.org/abs/1911.09723), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_planes import Grid
from exporters._tvm_planes_tir import zeros
from exporters._tvm_tiles import PARALLEL_MACS, TASKS, ceil_div


@dataclass(frozen=True, kw_only=True)
class Point:
    """A pointwise convolution.

    Attributes:
        zeroed: whether the padding of the result is read as zeros by a window.
        after: what follows the sums, see `_tvm_after`.
    """

    grid: Grid
    inputs: int
    outputs: int
    zeroed: bool = False
    after: tuple[After, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of dense weights."""
        return self.inputs * self.outputs * self.grid.height * self.grid.width


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the weights are stored and the work is cut.

    Attributes:
        sparse: whether zero weights are left out.
        rows: outputs that share a list.
        vectors: of pixels, in a tile.
        panel: inputs that are taken together; 0 for all.
    """

    sparse: bool
    rows: int
    vectors: int
    panel: int = 0


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Weights in a `Form`: flat ``values``; of sparse ones also ``offsets`` and ``starts``.

    The list of group g in panel p is ``starts[p * groups + g]`` to ``starts[p * groups + g + 1]``.
    """

    values: NDArray[np.float32]
    offsets: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    starts: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """As the kernel takes them."""
        return (self.values, self.offsets, self.starts) if len(self.starts) else (self.values,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the arrays; a kernel serves all layers where these are equal."""
        return tuple(len(array) for array in self.arrays())


def pack(weight: NDArray[Any], size: int, form: Form) -> Packed:
    """Store (outputs, inputs) in ``form``, for planes of ``size`` values.

    The last group is padded with zeros.
    """
    outputs, inputs = weight.shape
    groups = ceil_div(outputs, form.rows)
    padded = np.zeros((groups * form.rows, inputs), np.float32)
    padded[:outputs] = weight
    blocks = padded.reshape(groups, form.rows, inputs).transpose(0, 2, 1)  # group, input, row
    if not form.sparse:
        return Packed(values=blocks.ravel())
    used = np.any(blocks != 0, axis=2)
    values: list[NDArray[Any]] = []
    offsets: list[NDArray[Any]] = []
    starts = [0]
    panel = form.panel or inputs
    for first in range(0, inputs, panel):
        for group in range(groups):
            found = first + np.flatnonzero(used[group, first : first + panel])
            values.append(blocks[group, found].ravel())
            offsets.append(found * size)
            starts.append(starts[-1] + len(found))
    if not starts[-1]:  # a buffer may not be empty
        values.append(np.zeros(form.rows))
        offsets.append(np.zeros(1))
    return Packed(
        values=np.concatenate(values).astype(np.float32),
        offsets=np.concatenate(offsets).astype(np.int32),
        starts=np.array(starts, np.int32),
    )


def kernel(
    name: str, point: Point, form: Form, sizes: tuple[int, ...], *, threads: bool = True
) -> Any:
    """The PrimFunc: planes, `Packed.arrays`, bias, what `Epilogue` declares, [mask], planes."""
    return _tvm_tir.kernel(
        name,
        point.grid.lanes,
        lambda w: _PointWriter(w, point, form, sizes).write(),
        threads=threads,
    )


class Sums:
    """A register tile: ``rows`` outputs x ``vectors`` of pixels, summed over a list of inputs."""

    def __init__(self, w: _tvm_tir.Writer, rows: int, vectors: int) -> None:
        self.w, self.rows, self.vectors = w, rows, vectors
        self.held = w.registers(rows * vectors)

    def slot(self, row: int, vector: int) -> int:
        return (row * self.vectors + vector) * self.w.lanes

    def set(self, value: Callable[[int, int], Any]) -> None:
        """Start from ``value(row, vector)``."""
        for row in range(self.rows):
            for vector in range(self.vectors):
                self.w.store(self.held, self.slot(row, vector), value(row, vector))

    def get(self, row: int, vector: int) -> Any:
        return self.w.load(self.held, self.slot(row, vector))

    def add(self, image: Any, offset: Any, values: Any, at: Any) -> None:
        """Add the vectors at ``offset`` times the ``rows`` values at ``at``."""
        w = self.w
        pixels = w.registers(self.vectors) if self.rows > 1 else None
        if pixels is not None:
            for vector in range(self.vectors):
                w.store(pixels, vector * w.lanes, w.load(image, offset + vector * w.lanes))
        for row in range(self.rows):
            value = w.splat(values[at + row])
            for vector in range(self.vectors):
                pixel = (
                    w.load(pixels, vector * w.lanes)
                    if pixels is not None
                    else w.load(image, offset + vector * w.lanes)
                )
                slot = self.slot(row, vector)
                w.store(self.held, slot, w.load(self.held, slot) + value * pixel)


class Weights:
    """Declares the weights' arguments and writes the loop over the inputs of a group."""

    def __init__(
        self,
        w: _tvm_tir.Writer,
        form: Form,
        sizes: tuple[int, ...],
        shape: tuple[int, int],
        size: int,
        label: str = "weight",
    ) -> None:
        self.w, self.form, self.size = w, form, size
        self.outputs, self.inputs = shape
        self.values = w.argument(f"{label}_values", sizes[0])
        if form.sparse:
            self.offsets = w.indices(f"{label}_offsets", sizes[1])
            self.starts = w.indices(f"{label}_starts", sizes[2])

    def write(self, sums: Sums, image: Any, base: Any, group: Any, panel: Any = 0) -> None:
        """Add what the group's list gives; ``base`` is the first vector's offset in a plane."""
        w, rows = self.w, self.form.rows
        if self.form.sparse:
            row = w.fix(panel * ceil_div(self.outputs, rows) + group)
            first = w.fix(self.starts[row])
            with w.loop(self.starts[row + 1] - first) as turn:
                step = w.fix(first + turn)
                at = w.fix(self.offsets[step] + base)
                sums.add(image, at, self.values, w.fix(step * rows))
            return
        first = panel * (self.form.panel or self.inputs)
        count = w.share(self.inputs, self.form.panel or self.inputs, panel)
        with w.loop(count) as turn:
            step = w.fix(first + turn)
            at = w.fix(step * self.size + base)
            sums.add(image, at, self.values, w.fix((group * self.inputs + step) * rows))


class _PointWriter:
    def __init__(
        self, w: _tvm_tir.Writer, point: Point, form: Form, sizes: tuple[int, ...]
    ) -> None:
        self.w, self.point, self.form = w, point, form
        size = point.grid.size
        self.image = w.argument("image", point.inputs * size)
        shape = (point.outputs, point.inputs)
        self.weights = Weights(w, form, sizes, shape, size)
        self.bias = w.argument("bias", point.outputs)
        self.after = Epilogue(w, point.after, point.outputs * size, point.outputs, planes=True)
        if point.zeroed:
            self.mask = w.argument("mask", point.grid.vectors * w.lanes)
        self.out = w.argument("out", point.outputs * size)
        self.groups, self.rest = divmod(point.outputs, form.rows)

    def write(self) -> None:
        """The parallel loop over tasks: tiles of pixels x parts of the outputs."""
        w, form = self.w, self.form
        vectors = self.point.grid.vectors
        tiles = ceil_div(vectors, form.vectors)
        parts = min(max(self.groups, 1), ceil_div(TASKS, tiles))
        each = ceil_div(self.groups, parts)
        parts = ceil_div(self.groups, each) if each else 1
        with w.parallel(tiles * parts, self.point.macs >= PARALLEL_MACS) as task:
            tile, part = w.divmod(task, parts)
            start = w.fix(w.minimum(tile * form.vectors, vectors - form.vectors) * w.lanes)
            panels = ceil_div(self.point.inputs, form.panel or self.point.inputs)
            for number in range(panels):
                self._panel(tile, part, each, start, number, panels)

    def _panel(self, tile: Any, part: Any, each: int, start: Any, panel: int, panels: int) -> None:
        w = self.w
        if each:
            with w.loop(w.share(self.groups, each, part)) as turn:
                self._tile(tile, w.fix(part * each + turn), self.form.rows, start, panel, panels)
        if self.rest:

            def last() -> None:
                self._tile(tile, self.groups, self.rest, start, panel, panels)

            w.when_equal(part, 0, last)

    def _tile(self, tile: Any, group: Any, rows: int, start: Any, panel: int, panels: int) -> None:
        w, grid, form = self.w, self.point.grid, self.form
        base = w.fix(start + grid.origin)
        first = w.fix(group * form.rows)
        sums = Sums(w, rows, form.vectors)
        if panel == 0:
            sums.set(lambda row, vector: w.splat(self.bias[first + row]))
        else:
            sums.set(
                lambda row, vector: w.load(
                    self.out, (first + row) * grid.size + base + vector * w.lanes
                )
            )
        self.weights.write(sums, self.image, base, group, panel)
        done = panel == panels - 1
        for row in range(rows):
            there = w.fix((first + row) * grid.size + base)
            for vector in range(form.vectors):
                value, at = sums.get(row, vector), there + vector * w.lanes
                if done:
                    value = self.after.apply(value, at, first + row)
                    if self.point.zeroed:
                        value = value * w.load(self.mask, start + vector * w.lanes)
                w.store(self.out, at, value)
            if done:
                self._pad(tile, first + row)

    def _pad(self, tile: Any, channel: Any) -> None:
        """Zeros above and below, written by the first tile."""
        w, grid = self.w, self.point.grid
        plane = w.fix(channel * grid.size)

        def pad() -> None:
            zeros(w, self.out, plane, grid.origin)
            end = grid.origin + grid.vectors * grid.lanes
            zeros(w, self.out, plane + end, grid.size - end)

        w.when_equal(tile, 0, pad)
