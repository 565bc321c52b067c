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
    """The sums of one channel's window, some rows of a vector at once.

    Input rows are read once in a tile, for all output rows that they are part of.
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
        w, step = self.w, min(ROWS, rows)

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

    def _weight(self, ky: int, kx: int) -> Any:
        return self.w.load(self.weights, (ky * self.taps.count + kx) * self.w.lanes)
