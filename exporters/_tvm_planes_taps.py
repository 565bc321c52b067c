"""Reading a window on padded planes: the taps of a row, and the sums of depthwise convolutions.

Rows lie as they are, or in halves: of a stride of two the columns of the even taps, then those
of the odd ones. From halves each tap of a vector of outputs is a plain load; from a row that lies
as it is, two vectors are loaded and every second value taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exporters._tvm_planes_tir import columns
from exporters._tvm_tiles import Window, ceil_div
from exporters._tvm_tir import Writer

ROWS = 4
"""Of a depthwise tile."""

HIGH = 5
"""Rows of an image, by those that are begun in vain, from which on to go down its columns."""

Store = Callable[[Any, Any, Any], None]


def half_pitch(window: Window, out_pitch: int, lanes: int) -> int:
    """Values of a half row that ``out_pitch`` outputs read; 0 without a stride.

    Whole vectors, unless that adds more than a sixteenth to it.
    """
    if window.stride[1] == 1:
        return 0
    read = out_pitch + window.kernel[1] // 2
    whole = ceil_div(read, lanes) * lanes
    return whole if 16 * whole <= 17 * read else read


class Taps:
    """Reads the vectors of an input row that the taps of an output vector need.

    Args:
        half: values between the two halves of a row; 0 where it lies as it is.
    """

    def __init__(self, w: Writer, window: Window, half: int = 0) -> None:
        self.w, self.count, self.half = w, window.kernel[1], half
        self.stride = 1 if half else window.stride[1]
        """From a column of the output to the next one, in the input."""

    def place(self, tap: int) -> int:
        """Of a tap's first pixel behind the leftmost one's."""
        return tap % 2 * self.half + tap // 2 if self.half else tap

    def read(self, image: Any, at: Any) -> list[Any]:
        """One vector per tap, held in registers; the leftmost tap's first pixel is at ``at``."""
        w = self.w
        held = w.registers(self.count)
        for tap in range(self.count):
            if self.stride == 1:
                w.store(held, tap * w.lanes, w.load(image, at + self.place(tap)))
            elif tap % 2 == 0:
                pair = [w.load(image, at + tap + side * w.lanes) for side in (0, 1)]
                for more in range(min(2, self.count - tap)):
                    vector = w.every_second(pair[0], pair[1], more)
                    w.store(held, (tap + more) * w.lanes, vector)
        return [w.load(held, tap * w.lanes) for tap in range(self.count)]

    def each(self, image: Any, starts: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
        """For each tap, in order, the vectors of some tiles; a row that is ready is read late."""
        w = self.w
        if self.stride == 1:
            for tap in range(self.count):
                held = w.registers(len(starts))
                for number, at in enumerate(starts):
                    w.store(held, number * w.lanes, w.load(image, at + self.place(tap)))
                yield tap, [w.load(held, number * w.lanes) for number in range(len(starts))]
            return
        yield from enumerate(map(list, zip(*(self.read(image, at) for at in starts), strict=True)))


class Depthwise:
    """The sums of one channel's window: tile by tile, or down the columns of a high image.

    A tile holds some rows of one vector; input rows are read once in it, for all output rows that
    they are part of. Down a column they are read once altogether, and the sums of the rows below
    are carried on, but those that are begun at the end are in vain.
    """

    def __init__(
        self, w: Writer, window: Window, taps: Taps, weight: Any, first: Any, bias: Any
    ) -> None:
        """Load the weights, which begin at ``first``, and the single value ``bias``."""
        self.w, self.window, self.taps = w, window, taps
        self.down, across = window.kernel
        self.weights, self.bias = w.registers(self.down * across), w.registers(1)
        for tap in range(self.down * across):
            w.store(self.weights, tap * w.lanes, w.splat(weight[first + tap]))
        w.store(self.bias, 0, w.splat(bias))

    def write(self, source: tuple[Any, Any, int], shape: tuple[int, int], store: Store) -> None:
        """Hand the sums of (rows, columns) to ``store(row, column, sum)``.

        Args:
            source: buffer, offset of the first tap of the first row, pitch.
        """
        rows, length = shape
        ahead = (self.down - 1) // self.window.stride[0]
        if self.window.dilation[0] == 1 and rows >= HIGH * ahead:
            columns(self.w, length, 1, lambda x: self._column(source, x, rows, ahead, store))
            return
        step = min(ROWS, rows)
        w = self.w

        def tile(y: Any, count: int) -> None:
            columns(w, length, 1, lambda x: self._tile(source, y, x, count, store))

        with w.loop(rows // step) as index:
            tile(w.fix(index * step), step)
        if rows % step:
            tile(rows - rows % step, rows % step)

    def _tile(self, source: tuple[Any, Any, int], y: Any, x: Any, rows: int, store: Store) -> None:
        w, window = self.w, self.window
        image, start, pitch = source
        at = w.fix(start + y * (window.stride[0] * pitch) + x * self.taps.stride)
        users: dict[int, list[tuple[int, int]]] = {}
        for row in range(rows):
            for ky in range(self.down):
                below = row * window.stride[0] + ky * window.dilation[0]
                users.setdefault(below, []).append((row, ky))
        sums = w.registers(rows)
        for row in range(rows):
            w.store(sums, row * w.lanes, w.load(self.bias, 0))
        for below, pairs in sorted(users.items()):
            pixels = self.taps.read(image, at + below * pitch)
            for kx, pixel in enumerate(pixels):
                for row, ky in pairs:
                    total = w.load(sums, row * w.lanes) + pixel * self._weight(ky, kx)
                    w.store(sums, row * w.lanes, total)
        for row in range(rows):
            store(y + row, x, w.load(sums, row * w.lanes))

    def _column(
        self, source: tuple[Any, Any, int], x: Any, rows: int, ahead: int, store: Store
    ) -> None:
        """``ahead`` sums are begun before it is their row's turn."""
        w, stride = self.w, self.window.stride[0]
        image, start, pitch = source
        at = w.fix(start + x * self.taps.stride)
        fresh = min(self.down, stride)
        sums = w.registers(ahead + 1)
        for row in range(ahead):
            w.store(sums, row * w.lanes, w.load(self.bias, 0))
        for row in range(self.down - fresh):
            self._add(sums, ahead, self.taps.read(image, at + row * pitch), row)
        with w.loop(rows) as y:
            w.store(sums, ahead * w.lanes, w.load(self.bias, 0))
            top = w.fix(at + y * (stride * pitch))
            for row in range(self.down - fresh, self.down):
                self._add(sums, ahead + 1, self.taps.read(image, top + row * pitch), row)
            store(y, x, w.load(sums, 0))
            for row in range(ahead):
                w.store(sums, row * w.lanes, w.load(sums, (row + 1) * w.lanes))

    def _add(self, sums: Any, count: int, pixels: list[Any], row: int) -> None:
        """What an input row gives to the next ``count`` output rows.

        Summed up on its own first: multiply-adds need not wait for those of the row above.
        """
        w = self.w
        for output in range(count):
            ky = row - output * self.window.stride[0]
            if ky >= 0:
                total = pixels[0] * self._weight(ky, 0)
                for kx, pixel in enumerate(pixels[1:], 1):
                    total = total + pixel * self._weight(ky, kx)
                w.store(sums, output * w.lanes, w.load(sums, output * w.lanes) + total)

    def _weight(self, ky: int, kx: int) -> Any:
        return self.w.load(self.weights, (ky * self.taps.count + kx) * self.w.lanes)
