"""Kernel of an inverted residual on padded planes: expand or first convolution, window, project.

On large maps the time goes into writing and reading the tensors between the three. Here a task
takes a strip of output rows: of a few expanded channels it computes the rows that the strip needs
into a scratch buffer, runs the window over them into another one, and when all channels have
passed, projects them. Neither tensor leaves the cache. Rows where strips meet are expanded twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporters import _tvm_tir
from exporters._tvm_after import Epilogue
from exporters._tvm_planes import LINE
from exporters._tvm_planes_point import Form, Point, Sums, Weights
from exporters._tvm_planes_tir import columns, zeros
from exporters._tvm_planes_window import (
    OUTPUTS,
    ROWS,
    Windowed,
    conv_tile,
    depthwise_tile,
    first_tap,
)
from exporters._tvm_tiles import ceil_div

SCRATCH_BYTES = 288 * 1024
"""What the result of the window may take in a strip: half of a second-level cache and a bit."""

ROWS_OF_STRIP = range(4, 17)


@dataclass(frozen=True, kw_only=True)
class Fused:
    """``first`` is read by ``window`` alone, which is read by ``last`` alone."""

    first: Point | Windowed
    window: Windowed
    last: Point
    first_form: Form | None
    last_form: Form

    @property
    def rows(self) -> int:
        """Of a strip: as few as possible are computed twice."""
        grid, window = self.window.grid, self.window.window

        def work(rows: int) -> float:
            strips = ceil_div(grid.height, rows)
            return strips * ((rows - 1) * window.stride[0] + window.kernel[0])

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


def kernel(name: str, fused: Fused, sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
    """The PrimFunc; ``sizes`` are those of the packed weights of the first and last convolution.

    Arguments: planes; weights and bias of the first; mask of its result's grid; weights and bias of
    the window; weights and bias of the last, what its `Epilogue` declares; planes.
    """
    lanes = fused.last.grid.lanes
    return _tvm_tir.kernel(name, lanes, lambda w: _FusedWriter(w, fused, sizes).write())


class _FusedWriter:
    def __init__(
        self,
        w: _tvm_tir.Writer,
        fused: Fused,
        sizes: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> None:
        self.w, self.fused = w, fused
        first, window, last = fused.first, fused.window, fused.last
        source = first.grid if isinstance(first, Point) else first.source
        self.image = w.argument("image", first.inputs * source.size)
        if isinstance(first, Point):
            assert fused.first_form is not None
            self.group = fused.first_form.rows
            shape = (first.outputs, first.inputs)
            form = fused.first_form
            self.weights = Weights(w, form, sizes[0], shape, source.size, "first")
        else:
            self.group = OUTPUTS
            self.weight = w.argument("first_weight", first.weights)
        self.bias = w.argument("first_bias", first.outputs)
        self.mask = w.argument("mask", first.grid.size)
        self.window_weight = w.argument("window_weight", window.weights)
        self.window_bias = w.argument("window_bias", window.outputs)
        self.rows = fused.rows
        self.strip_size = fused.strip_size
        shape = (last.outputs, last.inputs)
        self.last = Weights(w, fused.last_form, sizes[1], shape, self.strip_size, "last")
        self.last_bias = w.argument("last_bias", last.outputs)
        size = last.outputs * last.grid.size
        self.after = Epilogue(w, last.after, size, last.outputs, planes=True)
        self.out = w.argument("out", size)
        taps = window.window
        self.source_rows = (self.rows - 1) * taps.stride[0] + taps.kernel[0]
        self.filled = self.source_rows * window.source.pitch
        self.first_after = Epilogue(w, first.after, 0, first.outputs, planes=True)
        self.window_after = Epilogue(w, window.after, 0, window.outputs, planes=True)
        # Taps of the first pixel read what lies before it, vectors over the end what lies behind.
        self.behind = 2 * taps.kernel[1] + 4 * w.lanes
        self.scratch_size = _odd_lines(self.filled + self.behind)

    def write(self) -> None:
        """The parallel loop over strips."""
        w, grid = self.w, self.fused.window.grid
        strips = ceil_div(grid.height, self.rows)
        with w.parallel(strips, True) as strip:
            y = w.fix(w.minimum(strip * self.rows, grid.height - self.rows))
            self.scratch = w.scratch(self.group * self.scratch_size)
            self.windowed = w.scratch(self.fused.window.outputs * self.strip_size)
            with w.loop(self.group) as row:
                before = w.fix(row * self.scratch_size)
                zeros(w, self.scratch, before, w.lanes)
                behind = before + (w.lanes + self.filled)
                zeros(w, self.scratch, behind, self.behind - 2 * w.lanes)
            full, rest = divmod(self.fused.first.outputs, self.group)
            with w.loop(full) as group:
                self._channels(group, self.group, y)
            if rest:
                self._channels(full, rest, y)
            self._project(y)
            if self.fused.last.zeroed:
                self._clear(y)
            w.when_equal(strip, 0, self._pad)

    def _channels(self, group: Any, count: int, y: Any) -> None:
        """Expand ``count`` channels and run the window over them."""
        w, window = self.w, self.fused.window
        top = w.fix(y * window.window.stride[0] - window.window.padding[0])
        if isinstance(self.fused.first, Point):
            self._expand(self.fused.first, group, count, top)
        else:
            self._convolve(self.fused.first, group, count, top)
        pitch, out_pitch = window.source.pitch, window.grid.pitch
        with w.loop(count) as number:
            channel = w.fix(group * self.group + number)

            def tile(row: Any, rows: int, number: Any = number, channel: Any = channel) -> None:
                def column(x: Any) -> None:
                    left = number * self.scratch_size + row * (window.window.stride[0] * pitch)
                    left = w.fix(left + x * window.window.stride[1] + self._lead())
                    there = w.fix(channel * self.strip_size + row * out_pitch + x)

                    def store(below: int, value: Any) -> None:
                        value = self.window_after.apply(value, 0, channel)
                        w.store(self.windowed, there + below * out_pitch, value)

                    depthwise_tile(
                        w,
                        window.window,
                        (self.scratch, left, pitch),
                        (self.window_weight, self.window_bias, channel),
                        rows,
                        store,
                    )

                columns(w, out_pitch, 1, column)

            full, rest = divmod(self.rows, ROWS)
            with w.loop(full) as index:
                tile(w.fix(index * ROWS), ROWS)
            if rest:
                tile(full * ROWS, rest)

    def _lead(self) -> int:
        """Where the leftmost tap of the first pixel is, before the first row's pixels."""
        return self.w.lanes - self.fused.window.window.padding[1]

    def _expand(self, first: Point, group: Any, count: int, top: Any) -> None:
        """Rows from ``top`` on of a pointwise convolution, as one long row."""
        w, grid, form = self.w, first.grid, self.fused.first_form
        assert form is not None

        def tile(x: Any) -> None:
            base = w.fix(grid.origin + top * grid.pitch + x)
            sums = Sums(w, count, form.vectors)
            channel = w.fix(group * form.rows)
            sums.set(lambda row, _: w.splat(self.bias[channel + row]))
            self.weights.write(sums, self.image, base, group)
            for row in range(count):
                for vector in range(form.vectors):
                    value = self.first_after.apply(sums.get(row, vector), 0, channel + row)
                    value = value * w.load(self.mask, base + vector * w.lanes)
                    at = row * self.scratch_size + w.lanes + x + vector * w.lanes
                    w.store(self.scratch, at, value)

        columns(w, self.source_rows * grid.pitch, form.vectors, tile)

    def _convolve(self, first: Windowed, group: Any, count: int, top: Any) -> None:
        """Rows from ``top`` on of a convolution; rows outside the image become zero."""
        w, grid = self.w, first.grid
        with w.loop(self.source_rows) as row:
            wanted = w.fix(top + row)
            y = w.fix(w.minimum(w.maximum(wanted, 0), grid.height - 1))

            def column(x: Any) -> None:
                at = w.fix(w.lanes + row * grid.pitch + x)
                inside = w.fix(grid.origin + wanted * grid.pitch + x)

                def store(output: int, value: Any) -> None:
                    value = self.first_after.apply(value, 0, group * OUTPUTS + output)
                    value = value * w.load(self.mask, inside)
                    w.store(self.scratch, output * self.scratch_size + at, value)

                conv_tile(
                    w,
                    first,
                    (self.image, w.fix(first_tap(first, y, x))),
                    (self.weight, self.bias, group),
                    count,
                    store,
                )

            columns(w, grid.pitch, 1, column)

    def _project(self, y: Any) -> None:
        """The last convolution over the strip, all outputs of a tile of pixels at once."""
        w, last, form = self.w, self.fused.last, self.fused.last_form
        grid = last.grid
        full, rest = divmod(last.outputs, form.rows)

        def tile(x: Any) -> None:
            def outputs(group: Any, count: int) -> None:
                sums = Sums(w, count, form.vectors)
                channel = w.fix(group * form.rows)
                sums.set(lambda row, _: w.splat(self.last_bias[channel + row]))
                self.last.write(sums, self.windowed, x, group)
                for row in range(count):
                    there = (channel + row) * grid.size + grid.origin + y * grid.pitch + x
                    there = w.fix(there)
                    for vector in range(form.vectors):
                        at = there + vector * w.lanes
                        value = self.after.apply(sums.get(row, vector), at, channel + row)
                        w.store(self.out, at, value)

            with w.loop(full) as group:
                outputs(group, form.rows)
            if rest:
                outputs(full, rest)

        columns(w, self.rows * grid.pitch, form.vectors, tile)

    def _clear(self, y: Any) -> None:
        """Zeros between the rows of the strip."""
        w, grid = self.w, self.fused.last.grid
        with w.loop(self.fused.last.outputs) as channel, w.loop(self.rows) as row:
            end = channel * grid.size + grid.origin + (y + row) * grid.pitch + grid.width
            with w.loop(grid.margin) as x:
                w.store_one(self.out, end + x, w.zero)

    def _pad(self) -> None:
        """Zeros above and below all planes of the result."""
        w, grid = self.w, self.fused.last.grid
        end = grid.origin + grid.span
        left = (grid.size - end) % w.lanes
        with w.loop(self.fused.last.outputs) as channel:
            plane = w.fix(channel * grid.size)
            zeros(w, self.out, plane, grid.origin)
            with w.loop(left) as lane:
                w.store_one(self.out, plane + end + lane, w.zero)
            zeros(w, self.out, plane + end + left, grid.size - end - left)


def _odd_lines(size: int) -> int:
    """At least ``size`` values: an odd number of cache lines."""
    return (ceil_div(size, LINE) | 1) * LINE
