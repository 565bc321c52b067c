"""Kernels of depthwise and ordinary convolutions with a window, on padded planes.

A vector holds neighbouring pixels of an output row. The margin holds the zeros of the padding, so
no edge needs care. Vectors go over the columns of the margin too: what they write there is finite,
and `finish` puts zeros over it where a later window reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import _tvm_tir
from exporters._tvm_after import After, Epilogue
from exporters._tvm_planes import Grid, reach
from exporters._tvm_planes_taps import Depthwise, Taps
from exporters._tvm_planes_tir import columns, gaps, zeros
from exporters._tvm_tiles import PARALLEL_MACS, TASKS, Window, ceil_div

STRIDES = (1, 2)
OUTPUTS, VECTORS = 4, 2
"""Of a tile of an ordinary convolution: of 12 sums LLVM writes some to memory."""


@dataclass(frozen=True, kw_only=True)
class Windowed:
    """A convolution with a window, depthwise where ``inputs`` is 0.

    Attributes:
        source, grid: of input and output.
        zeroed: whether the padding of the result is read as zeros by a window.
        after: what follows the sums, see `_tvm_after`.
    """

    window: Window
    source: Grid
    grid: Grid
    outputs: int
    inputs: int = 0
    zeroed: bool = False
    after: tuple[After, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        taps = self.window.kernel[0] * self.window.kernel[1]
        return self.outputs * max(self.inputs, 1) * taps * self.grid.height * self.grid.width

    @property
    def weights(self) -> int:
        """Values of the packed weights."""
        taps = self.window.kernel[0] * self.window.kernel[1]
        if not self.inputs:
            return self.outputs * taps
        return ceil_div(self.outputs, OUTPUTS) * OUTPUTS * self.inputs * taps

    @property
    def lanes(self) -> int:
        """Of the vectors that this kernel uses: not longer than a row."""
        lanes = self.grid.lanes
        while lanes > self.grid.pitch:
            lanes //= 2
        return lanes


def fits(window: Window, margin: int) -> bool:
    """Whether these kernels know a window."""
    return (
        window.stride[0] in STRIDES
        and window.stride[1] in STRIDES
        and window.dilation[1] == 1
        and max(reach(window)) <= margin
    )


def pack(layer: Windowed, weight: NDArray[Any]) -> NDArray[np.float32]:
    """(outputs, inputs or 1, kh, kw) as the kernel reads them, flat."""
    if not layer.inputs:
        return weight.astype(np.float32).ravel()
    groups = ceil_div(layer.outputs, OUTPUTS)
    padded = np.zeros((groups * OUTPUTS, *weight.shape[1:]), np.float32)
    padded[: layer.outputs] = weight
    split = padded.reshape(groups, OUTPUTS, *weight.shape[1:])
    return split.transpose(0, 2, 3, 4, 1).ravel()  # group, input, ky, kx, output


def kernel(name: str, layer: Windowed) -> Any:
    """The PrimFunc: planes, weights, bias, what `Epilogue` declares, planes."""
    writer = _Conv if layer.inputs else _Depthwise
    return _tvm_tir.kernel(name, layer.lanes, lambda w: writer(w, layer).write())


def conv_tile(
    w: _tvm_tir.Writer,
    layer: Windowed,
    taps: Taps,
    source: tuple[Any, Any, int, int],
    weights: tuple[Any, Any, Any],
    tile: tuple[int, int],
    store: Callable[[int, int, Any], None],
) -> None:
    """Sum some vectors of some outputs and hand them to ``store(output, vector, sum)``.

    Args:
        source: buffer of planes, offset in a plane of the first tap, size of a plane, pitch.
        weights: buffer of the weights and of the bias, group of `OUTPUTS` outputs.
        tile: outputs, vectors.
    """
    image, left, size, pitch = source
    weight, bias, group = weights
    outputs, vectors = tile
    down, across = layer.window.kernel
    sums = w.registers(outputs * vectors)

    def slot(output: int, vector: int) -> int:
        return (output * vectors + vector) * w.lanes

    for output in range(outputs):
        for vector in range(vectors):
            w.store(sums, slot(output, vector), w.splat(bias[group * OUTPUTS + output]))
    with w.loop(layer.inputs) as channel, w.loop(down) as ky:
        below = ky * (layer.window.dilation[0] * pitch)
        at = w.fix(channel * size + left + below)
        step = ((group * layer.inputs + channel) * down + ky) * across
        first = w.fix(step * OUTPUTS)
        starts = [at + vector * (w.lanes * taps.stride) for vector in range(vectors)]
        for kx, pixels in taps.each(image, starts):
            for output in range(outputs):
                value = w.splat(weight[first + kx * OUTPUTS + output])
                for vector, pixel in enumerate(pixels):
                    total = w.load(sums, slot(output, vector)) + value * pixel
                    w.store(sums, slot(output, vector), total)
    for output in range(outputs):
        for vector in range(vectors):
            store(output, vector, w.load(sums, slot(output, vector)))


def first_tap(layer: Windowed, y: Any, x: Any) -> Any:
    """Offset in the input's plane of the upper left tap of output (y, x)."""
    window, source = layer.window, layer.source
    row = y * window.stride[0] - window.padding[0]
    return row * source.pitch + (source.origin - window.padding[1]) + x * window.stride[1]


class Windows:
    """What kernels share: arguments, a channel of a depthwise one, the store, the padding."""

    def __init__(self, w: _tvm_tir.Writer, layer: Windowed, *, declare_image: bool = True) -> None:
        self.w, self.layer = w, layer
        inputs = layer.inputs or layer.outputs
        self.image = w.argument("image", inputs * layer.source.size) if declare_image else None
        self.weight = w.argument("weight", layer.weights)
        self.bias = w.argument("bias", layer.outputs)
        size = layer.outputs * layer.grid.size
        self.after = Epilogue(w, layer.after, size, layer.outputs, planes=True)
        self.out = w.argument("out", size)

    def plane(self, channel: Any, number: Any) -> None:
        """A channel of a depthwise convolution; its input is the ``number``-th plane."""
        w, layer = self.w, self.layer
        first = channel * (layer.weights // layer.outputs)
        taps = Taps(w, layer.window)
        sums = Depthwise(w, layer.window, taps, self.weight, w.fix(first), self.bias[channel])
        left = w.fix(number * layer.source.size + first_tap(layer, 0, 0))
        sums.write(
            (self.image, left, layer.source.pitch),
            (layer.grid.height, layer.grid.pitch),
            lambda y, x, value: self.store(channel, y, x, value),
        )

    def store(self, channel: Any, y: Any, x: Any, value: Any) -> None:
        """What follows the sum, and the sum."""
        grid = self.layer.grid
        at = self.w.fix(channel * grid.size + grid.origin + y * grid.pitch + x)
        self.w.store(self.out, at, self.after.apply(value, at, channel))

    def finish(self, channel: Any) -> None:
        """Zeros above and below, and where a window reads them also between the rows."""
        w, grid = self.w, self.layer.grid
        plane = w.fix(channel * grid.size)
        end = grid.origin + grid.span
        zeros(w, self.out, plane, grid.origin)
        left = (grid.size - end) % w.lanes
        with w.loop(left) as lane:
            w.store_one(self.out, plane + end + lane, w.zero)
        zeros(w, self.out, plane + end + left, grid.size - end - left)
        if self.layer.zeroed:
            gaps(w, self.out, plane + grid.origin, grid)


class _Depthwise(Windows):
    def write(self) -> None:
        """One task is some channels; a tile is some rows of one vector."""
        w, layer = self.w, self.layer
        each = ceil_div(layer.outputs, min(layer.outputs, TASKS))
        tasks = ceil_div(layer.outputs, each)
        with (
            w.parallel(tasks, layer.macs >= PARALLEL_MACS) as task,
            w.loop(w.share(layer.outputs, each, task)) as turn,
        ):
            channel = w.fix(task * each + turn)
            self.plane(channel, channel)
            self.finish(channel)


class _Conv(Windows):
    def write(self) -> None:
        """One task is some outputs x some rows; a tile is some outputs of some vectors."""
        w, layer = self.w, self.layer
        full, rest = divmod(layer.outputs, OUTPUTS)
        groups, height = full + bool(rest), layer.grid.height
        each = ceil_div(height, min(height, ceil_div(TASKS, groups)))
        chunks = ceil_div(height, each)
        with w.parallel(groups * chunks, layer.macs >= PARALLEL_MACS) as task:
            group, chunk = w.divmod(task, chunks)

            def rows(count: int) -> None:
                with w.loop(w.share(height, each, chunk)) as turn:
                    self._row(group, w.fix(chunk * each + turn), count)

                def pad() -> None:
                    with w.loop(count) as output:
                        self.finish(w.fix(group * OUTPUTS + output))

                w.when_equal(chunk, chunks - 1, pad)

            if not rest:
                rows(OUTPUTS)
            elif not full:
                rows(rest)
            else:
                w.either(group < full, lambda: rows(OUTPUTS), lambda: rows(rest))

    def _row(self, group: Any, y: Any, count: int) -> None:
        layer = self.layer
        vectors = min(VECTORS, layer.grid.pitch // self.w.lanes)

        def column(x: Any) -> None:
            left = self.w.fix(first_tap(layer, y, x))
            conv_tile(
                self.w,
                layer,
                Taps(self.w, layer.window),
                (self.image, left, layer.source.size, layer.source.pitch),
                (self.weight, self.bias, group),
                (count, vectors),
                lambda output, vector, value: self.store(
                    group * OUTPUTS + output, y, x + vector * self.w.lanes, value
                ),
            )

        columns(self.w, layer.grid.pitch, vectors, column)
