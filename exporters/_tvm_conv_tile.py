"""The register tile of dense convolutions, with their description, plan and packed weights.

A tile of some pixels x some vectors of output channels stays in registers over the whole
reduction: each step broadcasts one input value per pixel and multiplies it with the vectors of
weights. Bias starts the sums; what follows comes at the store. Padding is never stored: tiles at
the image's edge leave out the taps that fall outside.

Weights are packed as the loops read them: (groups of output vectors, reduction, vectors x lanes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_tiles import Window, ceil_div

Place = Callable[[int, Any, Any], Any]
"""``place(vector, y, x)``: offset of an output pixel's vector, the tile's ``vector``-th one."""


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


class ConvTile:
    """Declares the arguments image, weight, bias and those of the epilogue; writes tiles."""

    def __init__(self, writer: _tvm_tir.Writer, conv: Conv, cut: Plan) -> None:
        self.w, self.conv, self.cut = writer, conv, cut
        window, lanes = conv.window, cut.lanes
        self.blocks = cut.groups * cut.vectors + cut.rest
        self.inner = 1 if conv.planar else lanes
        in_blocks = ceil_div(conv.inputs, self.inner)
        self.depth = in_blocks * self.inner * window.kernel[0] * window.kernel[1]
        self.out_size = self.blocks * window.out_height * window.out_width * lanes
        image = in_blocks * window.height * window.width * self.inner
        self.image = writer.argument("image", image)
        self.weight = writer.argument("weight", self.depth * self.blocks * lanes)
        self.bias = writer.argument("bias", self.blocks * lanes)
        self.after = Epilogue(writer, conv.after, self.out_size, self.blocks * lanes)

    def offset(self, block: Any, y: Any, x: Any) -> Any:
        """Offset of a pixel's vector in the whole output."""
        window = self.conv.window
        return ((block * window.out_height + y) * window.out_width + x) * self.cut.lanes

    def write(
        self,
        group: Any,
        vectors: int,
        y: Any,
        x: Any,
        taps: Sequence[Sequence[bool]],
        out: Any,
        place: Place,
    ) -> None:
        """Compute ``len(taps)`` pixels from (y, x) on, for one group of output vectors.

        They are stored to ``out`` where ``place`` says, neighbouring pixels side by side.
        """
        w, lanes, pixels = self.w, self.cut.lanes, len(taps)
        sums = w.registers(pixels * vectors)
        block = group * self.cut.vectors
        for vector in range(vectors):
            for pixel in range(pixels):
                start = w.load(self.bias, (block + vector) * lanes)
                w.store(sums, (pixel * vectors + vector) * lanes, start)
        full, part = divmod(self.conv.inputs, self.inner)
        if full:
            with w.loop(full) as in_block:
                self._taps(sums, group, vectors, (in_block, self.inner), y, x, taps)
        if part:
            self._taps(sums, group, vectors, (full, part), y, x, taps)
        for vector in range(vectors):
            channel = (block + vector) * lanes
            whole = w.fix(self.offset(block + vector, y, x))
            there = w.fix(place(vector, y, x))
            for pixel in range(pixels):
                value = w.load(sums, (pixel * vectors + vector) * lanes)
                value = self.after.apply(value, whole + pixel * lanes, channel)
                w.store(out, there + pixel * lanes, value)

    def _taps(
        self,
        sums: Any,
        group: Any,
        vectors: int,
        block: tuple[Any, int],
        y: Any,
        x: Any,
        taps: Sequence[Sequence[bool]],
    ) -> None:
        """Add what one block of input channels gives; ``block`` is its index and its channels."""
        window, inner = self.conv.window, self.inner
        in_block, channels = block
        first = group * (self.depth * self.cut.vectors * self.cut.lanes)
        low, high = rows_inside(self.w, window, y)
        across = window.kernel[1]

        def tap(ky: Any, kx: Any, pixels: Sequence[int]) -> None:
            step = ((in_block * window.kernel[0] + ky) * across + kx) * inner
            row = in_block * window.height + y * window.stride[0] - window.padding[0]
            row = (row + ky * window.dilation[0]) * window.width
            column = x * window.stride[1] - window.padding[1] + kx * window.dilation[1]
            left = self.w.fix((row + column) * inner)
            weights = self.w.fix(first + step * (vectors * self.cut.lanes))
            with self.w.loop(channels) as channel:
                self._step(
                    sums,
                    weights + channel * (vectors * self.cut.lanes),
                    vectors,
                    {m: left + m * (window.stride[1] * inner) + channel for m in pixels},
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
