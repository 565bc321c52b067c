"""Kernels of depthwise and ordinary convolutions with a window, on padded planes.

A vector holds neighbouring pixels of an output row. Taps are read where they lie, at any offset;
of a stride of two, two vectors are read and every second value taken. The margin holds the zeros
of the padding, so no edge needs care. Vectors go over the columns of the margin too: what they
write there is finite, and `finish` puts zeros over it where a later window reads them.
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
from exporters._tvm_planes_tir import columns, zeros
from exporters._tvm_tiles import PARALLEL_MACS, TASKS, Window, ceil_div

STRIDES = (1, 2)
ROWS = 4
"""Of a depthwise tile: neighbours share the input rows that they read."""

OUTPUTS = 8
"""Of a tile of an ordinary convolution."""


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


class Taps:
    """Reads the vectors of an input row that the taps of an output vector need."""

    def __init__(self, w: _tvm_tir.Writer, window: Window) -> None:
        self.w, self.count, self.stride = w, window.kernel[1], window.stride[1]

    def read(self, image: Any, at: Any) -> list[Any]:
        """One vector per tap, held in registers; the leftmost tap's first pixel is at ``at``."""
        w = self.w
        held = w.registers(self.count)
        for tap in range(self.count):
            if self.stride == 1:
                w.store(held, tap * w.lanes, w.load(image, at + tap))
            elif tap % 2 == 0:
                pair = [w.load(image, at + tap + half * w.lanes) for half in (0, 1)]
                for more in range(min(2, self.count - tap)):
                    vector = w.every_second(pair[0], pair[1], more)
                    w.store(held, (tap + more) * w.lanes, vector)
        return [w.load(held, tap * w.lanes) for tap in range(self.count)]


def depthwise_tile(
    w: _tvm_tir.Writer,
    window: Window,
    source: tuple[Any, Any, int],
    weights: tuple[Any, Any, Any],
    rows: int,
    store: Callable[[int, Any], None],
) -> None:
    """Sum ``rows`` vectors, one below the other, and hand them to ``store(row, sum)``.

    Args:
        source: buffer, offset of the first tap of the first row, pitch.
        weights: buffer of the weights and of the bias, channel.
    """
    image, left, pitch = source
    weight, bias, channel = weights
    down, across = window.kernel
    first = w.fix(channel * (down * across))
    users: dict[int, list[tuple[int, int]]] = {}
    for row in range(rows):
        for ky in range(down):
            below = row * window.stride[0] + ky * window.dilation[0]
            users.setdefault(below, []).append((row, ky))
    sums = w.registers(rows)
    for row in range(rows):
        w.store(sums, row * w.lanes, w.splat(bias[channel]))
    taps = Taps(w, window)
    for below, pairs in sorted(users.items()):
        pixels = taps.read(image, left + below * pitch)
        for row, ky in pairs:
            for kx in range(across):
                value = w.splat(weight[first + ky * across + kx])
                w.store(sums, row * w.lanes, w.load(sums, row * w.lanes) + value * pixels[kx])
    for row in range(rows):
        store(row, w.load(sums, row * w.lanes))


def conv_tile(
    w: _tvm_tir.Writer,
    layer: Windowed,
    source: tuple[Any, Any],
    weights: tuple[Any, Any, Any],
    count: int,
    store: Callable[[int, Any], None],
) -> None:
    """Sum one vector of each of ``count`` outputs and hand them to ``store(output, sum)``.

    Args:
        source: buffer of planes, offset in a plane of the first tap.
        weights: buffer of the weights and of the bias, group of `OUTPUTS` outputs.
    """
    image, left = source
    weight, bias, group = weights
    down, across = layer.window.kernel
    sums = w.registers(count)
    for output in range(count):
        w.store(sums, output * w.lanes, w.splat(bias[group * OUTPUTS + output]))
    taps = Taps(w, layer.window)
    with w.loop(layer.inputs) as channel, w.loop(down) as ky:
        below = ky * (layer.window.dilation[0] * layer.source.pitch)
        pixels = taps.read(image, w.fix(channel * layer.source.size + left + below))
        step = ((group * layer.inputs + channel) * down + ky) * across
        first = w.fix(step * OUTPUTS)
        for kx in range(across):
            for output in range(count):
                value = w.splat(weight[first + kx * OUTPUTS + output])
                slot = output * w.lanes
                w.store(sums, slot, w.load(sums, slot) + value * pixels[kx])
    for output in range(count):
        store(output, w.load(sums, output * w.lanes))


def first_tap(layer: Windowed, y: Any, x: Any) -> Any:
    """Offset in the input's plane of the upper left tap of output (y, x)."""
    window, source = layer.window, layer.source
    row = y * window.stride[0] - window.padding[0]
    return row * source.pitch + (source.origin - window.padding[1]) + x * window.stride[1]


class _Windows:
    """What both kernels share: arguments, the store, the padding."""

    def __init__(self, w: _tvm_tir.Writer, layer: Windowed) -> None:
        self.w, self.layer = w, layer
        inputs = layer.inputs or layer.outputs
        self.image = w.argument("image", inputs * layer.source.size)
        self.weight = w.argument("weight", layer.weights)
        self.bias = w.argument("bias", layer.outputs)
        size = layer.outputs * layer.grid.size
        self.after = Epilogue(w, layer.after, size, layer.outputs, planes=True)
        self.out = w.argument("out", size)

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
            with w.loop(grid.height) as y, w.loop(grid.margin) as x:
                at = plane + grid.origin + y * grid.pitch + grid.width + x
                w.store_one(self.out, at, w.zero)


class _Depthwise(_Windows):
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
            height = layer.grid.height
            rows = min(ROWS, height)
            with w.loop(height // rows) as index:
                self._tile(channel, w.fix(index * rows), rows)
            if height % rows:
                self._tile(channel, height - height % rows, height % rows)
            self.finish(channel)

    def _tile(self, channel: Any, y: Any, rows: int) -> None:
        w, source = self.w, self.layer.source

        def column(x: Any) -> None:
            left = w.fix(channel * source.size + first_tap(self.layer, y, x))
            depthwise_tile(
                w,
                self.layer.window,
                (self.image, left, source.pitch),
                (self.weight, self.bias, channel),
                rows,
                lambda row, value: self.store(channel, y + row, x, value),
            )

        columns(w, self.layer.grid.pitch, 1, column)


class _Conv(_Windows):
    def write(self) -> None:
        """One task is some outputs x some rows; a tile is eight outputs of one vector."""
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
        def column(x: Any) -> None:
            conv_tile(
                self.w,
                self.layer,
                (self.image, self.w.fix(first_tap(self.layer, y, x))),
                (self.weight, self.bias, group),
                count,
                lambda output, value: self.store(group * OUTPUTS + output, y, x, value),
            )

        columns(self.w, self.layer.grid.pitch, 1, column)
