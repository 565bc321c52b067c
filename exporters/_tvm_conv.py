"""Kernel of dense convolutions: pointwise ones, the first one of a network, and all others.

A register tile of some pixels x some vectors of output channels stays in registers over the
whole reduction: each step broadcasts one input value per pixel and multiplies it with the vectors
of weights. Bias starts the sums; residual and clip come at the store. Padding is never stored:
tiles at the image's edge leave out the taps that fall outside.

Weights are packed as the loops read them: (groups of output vectors, reduction, vectors x lanes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_tiles import (
    CHUNK_BYTES,
    PARALLEL_MACS,
    TASKS,
    Window,
    ceil_div,
    register_tile,
    runs,
)


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution without groups.

    Attributes:
        planar: the input is plain (channels, height, width), as the image is; else blocked.
        after: what follows the sums, see `_tvm_after`.
    """

    window: Window
    inputs: int
    outputs: int
    planar: bool = False
    after: tuple[After, ...] = ()

    @property
    def flat(self) -> bool:
        """Whether all pixels lie in one row that may be cut anywhere."""
        return self.window.pointwise and self.window.height == 1

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        window = self.window
        taps = window.kernel[0] * window.kernel[1]
        return self.inputs * self.outputs * taps * window.out_height * window.out_width


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a `Conv` is cut up for one CPU.

    Attributes:
        tile: pixels of a register tile.
        vectors: vectors of output channels of a register tile.
        groups: how often ``vectors`` fit; ``rest`` vectors remain.
        unit_count: rows, or tiles of a flattened pointwise convolution.
        chunk: of those, how many make a task.
        group_chunk: of the groups, how many make a task.
    """

    lanes: int
    tile: int
    vectors: int
    groups: int
    rest: int
    unit_count: int
    chunk: int
    group_chunk: int


def plan(conv: Conv, lanes: int, registers: int) -> Plan:
    """Choose the register tile and the tasks of ``conv``.

    A task holds a part of the pixels, whose input stays in the cache while all weights pass by;
    where the weights are the larger part, it holds some of them and all pixels pass by.
    """
    window = conv.window
    blocks = ceil_div(conv.outputs, lanes)
    depth = conv.inputs * window.kernel[0] * window.kernel[1]
    tile, vectors = register_tile(window.out_width, blocks, depth, lanes, registers)
    groups = blocks // vectors
    unit_count = ceil_div(window.out_width, tile) if conv.flat else window.out_height
    pixels = tile if conv.flat else window.width * window.stride[0]
    chunk = max(1, min(unit_count, CHUNK_BYTES // (4 * conv.inputs * pixels)))
    if depth * conv.outputs < conv.inputs * window.height * window.width:
        chunk = min(chunk, ceil_div(unit_count, TASKS))
    group_chunk = ceil_div(groups, min(groups, ceil_div(TASKS, ceil_div(unit_count, chunk))))
    return Plan(
        lanes=lanes,
        tile=tile,
        vectors=vectors,
        groups=groups,
        rest=blocks % vectors,
        unit_count=unit_count,
        chunk=chunk,
        group_chunk=group_chunk,
    )


def pack(
    conv: Conv, cut: Plan, weight: NDArray[Any], bias: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (outputs, inputs, kh, kw) and bias (outputs,) as the kernel reads them, flat."""
    lanes = cut.lanes
    blocks = cut.groups * cut.vectors + cut.rest
    inner = 1 if conv.planar else lanes
    in_blocks = ceil_div(conv.inputs, inner)
    padded = np.zeros((blocks * lanes, in_blocks * inner, *conv.window.kernel), np.float32)
    padded[: conv.outputs, : conv.inputs] = weight
    split = padded.reshape(blocks * lanes, in_blocks, inner, *conv.window.kernel)
    ordered = split.transpose(1, 3, 4, 2, 0)  # block, ky, kx, channel in block, output
    step = cut.vectors * lanes
    parts = [ordered[..., start : start + step].ravel() for start in range(0, blocks * lanes, step)]
    packed_bias = np.zeros(blocks * lanes, np.float32)
    packed_bias[: conv.outputs] = bias
    return np.concatenate(parts), packed_bias


def kernel(name: str, conv: Conv, cut: Plan) -> Any:
    """The PrimFunc: input, weights, bias, what `Epilogue` declares, output, all flat."""
    return _tvm_tir.kernel(name, cut.lanes, lambda writer: _ConvWriter(writer, conv, cut).write())


class _ConvWriter:
    """Writes one convolution: tasks, then groups of output channels, then tiles of pixels."""

    def __init__(self, writer: _tvm_tir.Writer, conv: Conv, cut: Plan) -> None:
        self.w, self.conv, self.cut = writer, conv, cut
        window, lanes = conv.window, cut.lanes
        self.window = window
        self.blocks = cut.groups * cut.vectors + cut.rest
        self.inner = 1 if conv.planar else lanes
        self.in_blocks = ceil_div(conv.inputs, self.inner)
        taps = window.kernel[0] * window.kernel[1]
        self.depth = self.in_blocks * self.inner * taps
        out_size = self.blocks * window.out_height * window.out_width * lanes
        image = self.in_blocks * window.height * window.width * self.inner
        self.image = writer.argument("image", image)
        self.weight = writer.argument("weight", self.depth * self.blocks * lanes)
        self.bias = writer.argument("bias", self.blocks * lanes)
        self.after = Epilogue(writer, conv.after, out_size, self.blocks * lanes)
        self.out = writer.argument("out", out_size)

    def write(self) -> None:
        """The parallel loop over tasks: chunks of pixels x parts of the output channels."""
        cut = self.cut
        chunks = ceil_div(cut.unit_count, cut.chunk)
        whole = ceil_div(cut.groups, cut.group_chunk) * chunks
        rest = chunks if cut.rest else 0
        with self.w.parallel(whole + rest, self.conv.macs >= PARALLEL_MACS) as task:
            if rest:
                self.w.either(
                    task < whole,
                    lambda: self._groups(*self.w.divmod(task, chunks)),
                    lambda: self._pixels(cut.groups, cut.rest, task - whole),
                )
            else:
                self._groups(*self.w.divmod(task, chunks))

    def _groups(self, part: Any, chunk: Any) -> None:
        each, groups = self.cut.group_chunk, self.cut.groups
        stop = each if groups % each == 0 else self.w.minimum(each, groups - part * each)
        with self.w.loop(stop) as index:
            self._pixels(part * each + index, self.cut.vectors, chunk)

    def _pixels(self, group: Any, vectors: int, chunk: Any) -> None:
        cut, width = self.cut, self.window.out_width
        left = cut.unit_count - chunk * cut.chunk
        stop = cut.chunk if cut.unit_count % cut.chunk == 0 else self.w.minimum(cut.chunk, left)
        with self.w.loop(stop) as index:
            unit = chunk * cut.chunk + index
            if self.conv.flat:
                start = unit * cut.tile
                start = self.w.minimum(start, width - cut.tile) if width % cut.tile else start
                self._tile(group, vectors, 0, start, ((True,),) * cut.tile)
                return
            for run in runs(self.window, cut.tile):
                with self.w.loop(run.count) as turn:
                    self._tile(group, vectors, unit, run.start + turn * run.step, run.taps)

    def _tile(
        self, group: Any, vectors: int, y: Any, x: Any, taps: Sequence[Sequence[bool]]
    ) -> None:
        """Sums of ``len(taps)`` pixels from (y, x) on, for one group of output vectors."""
        w, lanes, pixels, window = self.w, self.cut.lanes, len(taps), self.window
        sums = w.registers(pixels * vectors)
        block = group * self.cut.vectors
        for vector in range(vectors):
            for pixel in range(pixels):
                start = w.load(self.bias, (block + vector) * lanes)
                w.store(sums, (pixel * vectors + vector) * lanes, start)
        full, part = divmod(self.conv.inputs, self.inner)
        weights = group * (self.depth * self.cut.vectors * lanes)
        if full:
            with w.loop(full) as in_block:
                self._taps(sums, weights, vectors, in_block, self.inner, y, x, taps)
        if part:
            self._taps(sums, weights, vectors, full, part, y, x, taps)
        for vector in range(vectors):
            row = ((block + vector) * window.out_height + y) * window.out_width + x
            for pixel in range(pixels):
                at = (row + pixel) * lanes
                value = w.load(sums, (pixel * vectors + vector) * lanes)
                w.store(self.out, at, self.after.apply(value, at, (block + vector) * lanes))

    def _taps(
        self,
        sums: Any,
        weights: Any,
        vectors: int,
        in_block: Any,
        channels: int,
        y: Any,
        x: Any,
        taps: Sequence[Sequence[bool]],
    ) -> None:
        """Add what the taps of one block of input channels give; rows outside are left out."""
        window, inner = self.window, self.inner
        low, high = rows_inside(self.w, window, y)
        across = window.kernel[1]

        def tap(ky: Any, kx: Any, pixels: Sequence[int]) -> None:
            step = ((in_block * window.kernel[0] + ky) * across + kx) * inner
            row = in_block * window.height + y * window.stride[0] - window.padding[0]
            row = (row + ky * window.dilation[0]) * window.width
            column = x * window.stride[1] - window.padding[1] + kx * window.dilation[1]
            with self.w.loop(channels) as channel:
                self._step(
                    sums,
                    weights + (step + channel) * (vectors * self.cut.lanes),
                    vectors,
                    {m: (row + column + m * window.stride[1]) * inner + channel for m in pixels},
                )

        with self.w.loop(high, low) as ky:
            if all(all(pixel) for pixel in taps) and not self.conv.planar:
                with self.w.loop(across) as kx:
                    tap(ky, kx, range(len(taps)))
            else:
                for kx in range(across):
                    inside = [m for m, pixel in enumerate(taps) if pixel[kx]]
                    if inside:
                        tap(ky, kx, inside)

    def _step(self, sums: Any, weights: Any, vectors: int, values: dict[int, Any]) -> None:
        """One step of the reduction: the vectors at ``weights`` times one value per pixel."""
        w, lanes = self.w, self.cut.lanes
        held = w.registers(vectors)
        for vector in range(vectors):
            w.store(held, vector * lanes, w.load(self.weight, weights + vector * lanes))
        for pixel, at in values.items():
            for vector in range(vectors):
                slot = (pixel * vectors + vector) * lanes
                product = w.splat(self.image[at]) * w.load(held, vector * lanes)
                w.store(sums, slot, w.load(sums, slot) + product)


def rows_inside(w: _tvm_tir.Writer, window: Window, y: Any) -> tuple[Any, Any]:
    """The vertical taps of output row ``y`` that lie inside the image: first, last + 1."""
    top, _, bottom, _ = window.padding
    taps, dilation = window.kernel[0], window.dilation[0]
    first = y * window.stride[0] - top
    low: Any = 0
    high: Any = taps
    if top:
        low = w.maximum(0, w.divmod(dilation - 1 - first, dilation)[0])
    if bottom or top:
        high = w.minimum(taps, w.divmod(window.height - 1 - first, dilation)[0] + 1)
    return low, high
