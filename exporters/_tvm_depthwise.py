"""Kernels of depthwise convolutions and max pooling on blocked activations.

One task is one block of channels x some rows. A tile of neighbouring output pixels is summed in
registers; each input vector is loaded once and used by every output that it touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_conv import rows_inside
from exporters._tvm_tiles import PARALLEL_MACS, TASKS, Window, ceil_div, row_tile, runs


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


def kernel(name: str, layer: Depthwise, lanes: int, registers: int) -> Any:
    """The PrimFunc: input, [weights, bias], what `Epilogue` declares, output, all flat."""

    def body(writer: _tvm_tir.Writer) -> None:
        _DepthwiseWriter(writer, layer, registers).write()

    return _tvm_tir.kernel(name, lanes, body)


class _DepthwiseWriter:
    """Writes one depthwise convolution or pool."""

    def __init__(self, writer: _tvm_tir.Writer, layer: Depthwise, registers: int) -> None:
        self.w, self.layer, self.window = writer, layer, layer.window
        window, lanes = layer.window, writer.lanes
        self.blocks = ceil_div(layer.channels, lanes)
        self.tile = row_tile(window.out_width, registers, window.kernel[1])
        out_size = self.blocks * window.out_height * window.out_width * lanes
        self.image = writer.argument("image", self.blocks * window.height * window.width * lanes)
        if not layer.pool:
            taps = window.kernel[0] * window.kernel[1]
            self.weight = writer.argument("weight", self.blocks * taps * lanes)
            self.bias = writer.argument("bias", self.blocks * lanes)
        self.after = Epilogue(writer, layer.after, out_size, self.blocks * lanes)
        self.out = writer.argument("out", out_size)

    def write(self) -> None:
        """The parallel loop over tasks: blocks of channels x chunks of rows."""
        w, rows = self.w, self.window.out_height
        chunks = min(rows, ceil_div(TASKS, self.blocks))
        each = ceil_div(rows, chunks)
        chunks = ceil_div(rows, each)
        worthwhile = self.layer.macs >= PARALLEL_MACS
        with w.parallel(self.blocks * chunks, worthwhile) as task:
            block, chunk = w.divmod(task, chunks)
            stop = each if rows % each == 0 else w.minimum(each, rows - chunk * each)
            with w.loop(stop) as index:
                y = chunk * each + index
                for run in runs(self.window, self.tile):
                    with w.loop(run.count) as turn:
                        self._tile(block, y, run.start + turn * run.step, run.taps)

    def _tile(self, block: Any, y: Any, x: Any, taps: Sequence[Sequence[bool]]) -> None:
        w, lanes, window, layer = self.w, self.w.lanes, self.window, self.layer
        sums = w.registers(len(taps))
        for pixel in range(len(taps)):
            lowest = w.splat(float(np.finfo(np.float32).min))
            start = lowest if layer.pool else w.load(self.bias, block * lanes)
            w.store(sums, pixel * lanes, start)
        low, high = rows_inside(w, window, y)
        with w.loop(high, low) as ky:
            self._row(sums, block, y, ky, x, taps)
        row = (block * window.out_height + y) * window.out_width + x
        for pixel in range(len(taps)):
            at = (row + pixel) * lanes
            value = w.load(sums, pixel * lanes)
            w.store(self.out, at, self.after.apply(value, at, block * lanes))

    def _row(
        self, sums: Any, block: Any, y: Any, ky: Any, x: Any, taps: Sequence[Sequence[bool]]
    ) -> None:
        """Add what one row of the window gives, column by column of the input."""
        w, lanes, window = self.w, self.w.lanes, self.window
        across = window.kernel[1]
        users: dict[int, list[tuple[int, int]]] = {}
        for pixel, inside in enumerate(taps):
            for kx in range(across):
                if inside[kx]:
                    column = pixel * window.stride[1] + kx * window.dilation[1]
                    users.setdefault(column, []).append((pixel, kx))
        if not self.layer.pool:
            held = w.registers(across)
            for kx in range(across):
                at = ((block * window.kernel[0] + ky) * across + kx) * lanes
                w.store(held, kx * lanes, w.load(self.weight, at))
        row = block * window.height + y * window.stride[0] - window.padding[0]
        row = (row + ky * window.dilation[0]) * window.width
        left = row + x * window.stride[1] - window.padding[1]
        values = w.registers(len(users))
        for index, column in enumerate(sorted(users)):
            w.store(values, index * lanes, w.load(self.image, (left + column) * lanes))
            value = w.load(values, index * lanes)
            for pixel, kx in users[column]:
                old = w.load(sums, pixel * lanes)
                if self.layer.pool:
                    w.store(sums, pixel * lanes, w.maximum(old, value))
                else:
                    w.store(sums, pixel * lanes, old + value * w.load(held, kx * lanes))
