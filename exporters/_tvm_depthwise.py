"""Kernels of depthwise convolutions and max pooling on blocked activations.

One task is one block of channels x some rows. A tile of neighbouring output pixels is summed in
registers; each input vector is loaded once and used by every output that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_conv_tile import rows_inside
from exporters._tvm_tiles import PARALLEL_MACS, TASKS, Window, ceil_div, row_tile, runs

Source = Callable[[Any], Any]
"""``source(y)``: offset of the first pixel's vector of input row y, in the block at hand."""


@dataclass(frozen=True, kw_only=True)
class Depthwise:
    """A depthwise convolution, or with ``pool`` the maximum over the window.

    Attributes:
        after: what follows the sums, see `_tvm_after`.
    """

    window: Window
    channels: int
    pool: bool = False
    after: tuple[After, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds (comparisons of a pool)."""
        window = self.window
        taps = window.kernel[0] * window.kernel[1]
        return self.channels * taps * window.out_height * window.out_width


def pack(
    layer: Depthwise, lanes: int, weight: NDArray[Any], bias: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (channels, 1, kh, kw) as (blocks, kh, kw, lanes), and bias (blocks, lanes), flat."""
    blocks = ceil_div(layer.channels, lanes)
    padded = np.zeros((blocks * lanes, *layer.window.kernel), np.float32)
    padded[: layer.channels] = weight[:, 0]
    split = padded.reshape(blocks, lanes, *layer.window.kernel)
    packed_bias = np.zeros(blocks * lanes, np.float32)
    packed_bias[: layer.channels] = bias
    return split.transpose(0, 2, 3, 1).ravel(), packed_bias


class DepthwiseTile:
    """Declares the arguments weight and bias (none of a pool) and the epilogue's; writes rows."""

    def __init__(self, writer: _tvm_tir.Writer, layer: Depthwise, registers: int) -> None:
        self.w, self.layer = writer, layer
        window, lanes = layer.window, writer.lanes
        self.blocks = ceil_div(layer.channels, lanes)
        self.runs = runs(window, row_tile(window.out_width, registers, window.kernel[1]))
        self.out_size = self.blocks * window.out_height * window.out_width * lanes
        if not layer.pool:
            taps = window.kernel[0] * window.kernel[1]
            self.weight = writer.argument("weight_of_window", self.blocks * taps * lanes)
            self.bias = writer.argument("bias_of_window", self.blocks * lanes)
        self.after = Epilogue(writer, layer.after, self.out_size, self.blocks * lanes)

    def row(self, block: Any, y: Any, image: Any, source: Source, out: Any) -> None:
        """Compute output row ``y`` of a block from ``image``, whose rows lie at ``source``."""
        for run in self.runs:
            with self.w.loop(run.count) as turn:
                x = run.start + turn * run.step
                self._tile(block, y, x, run.taps, image, source, out)

    def _tile(
        self,
        block: Any,
        y: Any,
        x: Any,
        taps: Sequence[Sequence[bool]],
        image: Any,
        source: Source,
        out: Any,
    ) -> None:
        w, lanes, window, layer = self.w, self.w.lanes, self.layer.window, self.layer
        sums = w.registers(len(taps))
        for pixel in range(len(taps)):
            lowest = w.splat(float(np.finfo(np.float32).min))
            start = lowest if layer.pool else w.load(self.bias, block * lanes)
            w.store(sums, pixel * lanes, start)
        low, high = rows_inside(w, window, y)
        with w.loop(high, low) as ky:
            row = source(y * window.stride[0] - window.padding[0] + ky * window.dilation[0])
            left = w.fix(row + (x * window.stride[1] - window.padding[1]) * lanes)
            weights = w.fix((block * window.kernel[0] + ky) * window.kernel[1])
            self._add(sums, weights, taps, image, left)
        first = w.fix(((block * window.out_height + y) * window.out_width + x) * lanes)
        for pixel in range(len(taps)):
            at = first + pixel * lanes
            w.store(out, at, self.after.apply(w.load(sums, pixel * lanes), at, block * lanes))

    def _add(
        self, sums: Any, weights: Any, taps: Sequence[Sequence[bool]], image: Any, left: Any
    ) -> None:
        """Add what one row of the window gives, column by column of the input from ``left`` on."""
        w, lanes, window = self.w, self.w.lanes, self.layer.window
        users: dict[int, list[tuple[int, int]]] = {}
        for pixel, inside in enumerate(taps):
            for kx in range(window.kernel[1]):
                if inside[kx]:
                    column = pixel * window.stride[1] + kx * window.dilation[1]
                    users.setdefault(column, []).append((pixel, kx))
        if not self.layer.pool:
            held = w.registers(window.kernel[1])
            for kx in range(window.kernel[1]):
                w.store(held, kx * lanes, w.load(self.weight, (weights + kx) * lanes))
        values = w.registers(len(users))
        for index, column in enumerate(sorted(users)):
            w.store(values, index * lanes, w.load(image, left + column * lanes))
            value = w.load(values, index * lanes)
            for pixel, kx in users[column]:
                old = w.load(sums, pixel * lanes)
                if self.layer.pool:
                    w.store(sums, pixel * lanes, w.maximum(old, value))
                else:
                    w.store(sums, pixel * lanes, old + value * w.load(held, kx * lanes))


def kernel(name: str, layer: Depthwise, lanes: int, registers: int) -> Any:
    """The PrimFunc: input, [weights, bias], what `Epilogue` declares, output, all flat."""
    window = layer.window

    def body(w: _tvm_tir.Writer) -> None:
        blocks, rows = ceil_div(layer.channels, lanes), window.out_height
        image = w.argument("image", blocks * window.height * window.width * lanes)
        tile = DepthwiseTile(w, layer, registers)
        out = w.argument("out", tile.out_size)
        each = ceil_div(rows, min(rows, ceil_div(TASKS, blocks)))
        chunks = ceil_div(rows, each)
        with w.parallel(blocks * chunks, layer.macs >= PARALLEL_MACS) as task:
            block, chunk = w.divmod(task, chunks)

            def source(y: Any) -> Any:
                return (block * window.height + y) * window.width * lanes

            with w.loop(w.share(rows, each, chunk)) as index:
                tile.row(block, chunk * each + index, image, source, out)

    return _tvm_tir.kernel(name, lanes, body)
