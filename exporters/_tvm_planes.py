"""Padded planes: the layout in which a vector holds neighbouring pixels of one channel.

A zero weight of a pointwise convolution can then be skipped alone. One plane per channel, one
after the other; in a plane rows of ``width + margin`` values, so that ``margin`` zeros lie between
two rows, and above and below the image ``margin`` rows of zeros and more. A window that reaches
over the edge thus reads zeros without being told, and a pointwise convolution sees one long row.

Above and below the image there are always zeros. Between rows there are zeros where a window reads
the plane, and else some finite numbers. Pure numpy: the geometry
can be tested without TVM.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporters._tvm_tiles import Window, ceil_div

LINE = 16
"""Float32 values in a cache line."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a plane lie.

    Attributes:
        margin: zeros between two rows, and rows of zeros above and below.
        lanes: float32 values in a vector.
    """

    height: int
    width: int
    margin: int
    lanes: int

    @property
    def pitch(self) -> int:
        """From a pixel to the one below it."""
        return self.width + self.margin

    @property
    def origin(self) -> int:
        """Of the first pixel: at the start of a cache line, after all that a window reads."""
        return ceil_div(self.margin * self.pitch + self.margin, LINE) * LINE

    @property
    def span(self) -> int:
        """Values from the first pixel to the end of the last row."""
        return self.height * self.pitch

    @property
    def vectors(self) -> int:
        """That hold the span."""
        return ceil_div(self.span, self.lanes)

    @cached_property
    def size(self) -> int:
        """Of a plane: whole cache lines, an odd number of them.

        Planes at multiples of 4 KB would push each other out of the cache.
        """
        below = self.margin * self.pitch + 3 * self.margin + 2 * self.lanes
        lines = ceil_div(self.origin + self.span + below, LINE)
        return (lines | 1) * LINE

    def at(self, y: int, x: int) -> int:
        """Offset of a pixel in its plane."""
        return self.origin + y * self.pitch + x

    def inside(self) -> NDArray[np.float32]:
        """(vectors x lanes,): 1 where a pixel is, 0 in the padding."""
        mask = np.zeros(self.vectors * self.lanes, np.float32)
        rows = mask[: self.span].reshape(self.height, self.pitch)
        rows[:, : self.width] = 1
        return mask

    def fill(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(channels, height, width) as planes, flat."""
        planes = np.zeros((len(image), self.size), np.float32)
        inner = planes[:, self.origin : self.origin + self.span]
        inner.reshape(len(image), self.height, self.pitch)[:, :, : self.width] = image
        return planes.ravel()

    def take(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(channels, height, width) of flat planes."""
        inner = planes.reshape(-1, self.size)[:, self.origin : self.origin + self.span]
        return inner.reshape(-1, self.height, self.pitch)[:, :, : self.width]


def margin(windows: Iterable[Window]) -> int:
    """The smallest margin that holds the padding of all windows."""
    return max((max(reach(window)) for window in windows), default=0)


def reach(window: Window) -> tuple[int, int]:
    """How far taps lie outside the image at most, (vertically, horizontally)."""
    found = []
    for axis, (extent, out) in enumerate(
        ((window.height, window.out_height), (window.width, window.out_width))
    ):
        last = (out - 1) * window.stride[axis] - window.padding[axis]
        last += (window.kernel[axis] - 1) * window.dilation[axis]
        found.append(max(window.padding[axis], last - extent + 1, 0))
    return found[0], found[1]


def split(vectors: int, most: int) -> int:
    """The vectors of a tile, at most ``most``, so that tiles are equal and overlap little."""
    return ceil_div(vectors, ceil_div(vectors, most))
