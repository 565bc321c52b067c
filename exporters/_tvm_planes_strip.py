"""Strips of an inverted residual on padded planes: how rows lie in them. Pure Python.

The kernel is in `_tvm_planes_fused`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from exporters._tvm_planes import LINE, Grid
from exporters._tvm_planes_point import Form, Point
from exporters._tvm_planes_taps import half_pitch
from exporters._tvm_planes_window import Windowed
from exporters._tvm_tiles import Window, ceil_div

SCRATCH_BYTES = 288 * 1024
"""What the result of the window may take in a strip: half of a second-level cache and a bit."""

ROWS_OF_STRIP = range(4, 17)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Rows of the source of a strip, copied so that each tap of a vector is one load.

    Attributes:
        half: values of the even taps' columns, before those of the odd ones; 0 where they lie as
            they do in the source.
        left: of the image's first column, where a row begins.
    """

    rows: int
    pitch: int
    half: int
    left: int

    @property
    def size(self) -> int:
        """Values of a channel."""
        return _odd_lines(self.rows * self.pitch + 2 * LINE)


@dataclass(frozen=True, kw_only=True)
class Fused:
    """``first`` is read by ``window`` alone, which is read by ``last`` alone."""

    first: Point | Windowed
    window: Windowed
    last: Point
    first_form: Form | None
    last_form: Form

    @cached_property
    def rows(self) -> int:
        """Of a strip: as few as possible are computed twice."""
        grid, window = self.window.grid, self.window.window

        def work(rows: int) -> float:
            return ceil_div(grid.height, rows) * read_rows(window, rows)

        able = [
            rows
            for rows in ROWS_OF_STRIP
            if rows <= grid.height and 4 * self.window.outputs * rows * grid.pitch <= SCRATCH_BYTES
        ]
        return min(able or [min(ROWS_OF_STRIP.start, grid.height)], key=work)

    @property
    def strip_size(self) -> int:
        """Values of a channel's strip, as `last` reads them."""
        return _odd_lines(self.rows * self.window.grid.pitch)

    @property
    def source(self) -> Grid:
        """That `first` reads."""
        return self.first.grid if isinstance(self.first, Point) else self.first.source

    @property
    def source_rows(self) -> int:
        """That the window reads of a strip."""
        return read_rows(self.window.window, self.rows)

    @cached_property
    def half(self) -> int:
        """Of the rows that the window reads: a pointwise convolution keeps them as they are."""
        if isinstance(self.first, Windowed):
            return 0
        return half_pitch(self.window.window, self.window.grid.pitch, self.window.grid.lanes)

    @property
    def pitch(self) -> int:
        """Of the rows that the window reads."""
        return 2 * self.half or self.window.source.pitch

    @property
    def lead(self) -> int:
        """Where the first tap of the first output is; a vector of zeros lies before the rows."""
        return self.window.grid.lanes - (0 if self.half else self.window.window.padding[1])

    @property
    def outside(self) -> list[int]:
        """Columns of a row that the window reads and that lie outside the image."""
        window, grid = self.window.window, self.window.source
        if not self.half:
            return [grid.width + column for column in range(grid.margin)]
        taps = range((window.out_width - 1) * 2 + window.kernel[1])
        columns = [(tap, tap - window.padding[1]) for tap in taps]
        beyond = [tap for tap, x in columns if not 0 <= x < grid.width]
        return [tap % 2 * self.half + tap // 2 for tap in beyond]

    @cached_property
    def copy(self) -> Copy | None:
        """What `first` reads; None where that is the source itself."""
        if isinstance(self.first, Point):
            if not self.half:
                return None
            left = self.window.window.padding[1]
            return Copy(rows=self.source_rows, pitch=self.pitch, half=self.half, left=left)
        window, grid = self.first.window, self.first.grid
        half = half_pitch(window, grid.pitch, grid.lanes)
        rows = read_rows(window, self.source_rows)
        pitch = 2 * half or grid.pitch + window.kernel[1] - 1
        return Copy(rows=rows, pitch=pitch, half=half, left=window.padding[1])

    @property
    def read_size(self) -> int:
        """Of a plane, as `first` reads it."""
        return self.copy.size if self.copy else self.source.size

    @property
    def filled(self) -> int:
        """Values of a channel that the window reads."""
        return self.source_rows * self.pitch

    @property
    def behind(self) -> int:
        """Values after them that vectors over the end read."""
        return 2 * self.window.window.kernel[1] + 4 * self.window.grid.lanes

    @property
    def scratch_size(self) -> int:
        """Values for a channel that the window reads."""
        return _odd_lines(self.filled + self.behind)


def read_rows(window: Window, rows: int) -> int:
    """Input rows of so many neighbouring output rows."""
    return (rows - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1


def _odd_lines(size: int) -> int:
    """At least ``size`` values: an odd number of cache lines."""
    return (ceil_div(size, LINE) | 1) * LINE
