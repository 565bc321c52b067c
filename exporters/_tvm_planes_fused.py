"""Kernel of an inverted residual on padded planes: expand or first convolution, window, project.

On large maps the time goes into writing and reading the tensors between the three. Here a task
takes a strip of output rows: of a few expanded channels it computes the rows that the strip needs
into a scratch buffer, runs the window over them into another one, and when all channels have
passed, projects them. Neither tensor leaves the cache. Rows where strips meet are expanded twice.
"""

from __future__ import annotations

from typing import Any

from exporters import _tvm_tir
from exporters._tvm_after import Epilogue
from exporters._tvm_planes_point import Point, Sums, Weights
from exporters._tvm_planes_strip import Fused
from exporters._tvm_planes_taps import Depthwise, Taps
from exporters._tvm_planes_tir import columns, zeros
from exporters._tvm_planes_window import OUTPUTS, VECTORS, Windowed, conv_tile
from exporters._tvm_tiles import ceil_div


def kernel(name: str, fused: Fused, sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
    """The PrimFunc; ``sizes`` are those of the packed weights of the first and last convolution.

    Arguments: planes; weights and bias of the first, of the window and of the last convolution;
    what the last one's `Epilogue` declares; planes.
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
        self.rows, self.strip_size = fused.rows, fused.strip_size
        self.image = w.argument("image", first.inputs * fused.source.size)
        if isinstance(first, Point):
            assert fused.first_form is not None
            self.group = fused.first_form.rows
            shape = (first.outputs, first.inputs)
            form = fused.first_form
            self.weights = Weights(w, form, sizes[0], shape, fused.read_size, "first")
        else:
            self.group = OUTPUTS
            self.weight = w.argument("first_weight", first.weights)
        self.bias = w.argument("first_bias", first.outputs)
        self.window_weight = w.argument("window_weight", window.weights)
        self.window_bias = w.argument("window_bias", window.outputs)
        shape = (last.outputs, last.inputs)
        self.last = Weights(w, fused.last_form, sizes[1], shape, self.strip_size, "last")
        self.last_bias = w.argument("last_bias", last.outputs)
        size = last.outputs * last.grid.size
        self.after = Epilogue(w, last.after, size, last.outputs, planes=True)
        self.out = w.argument("out", size)
        self.first_after = Epilogue(w, first.after, 0, first.outputs, planes=True)
        self.window_after = Epilogue(w, window.after, 0, window.outputs, planes=True)

    def write(self) -> None:
        """The parallel loop over strips."""
        w, fused, grid = self.w, self.fused, self.fused.window.grid
        strips = ceil_div(grid.height, self.rows)
        with w.parallel(strips, True) as strip:
            y = w.fix(w.minimum(strip * self.rows, grid.height - self.rows))
            self.scratch = w.scratch(self.group * fused.scratch_size)
            self.windowed = w.scratch(fused.window.outputs * self.strip_size)
            top = w.fix(y * fused.window.window.stride[0] - fused.window.window.padding[0])
            self.source, self.source_at = self._source(top)
            with w.loop(self.group) as row:
                before = w.fix(row * fused.scratch_size)
                zeros(w, self.scratch, before, w.lanes)
                behind = before + (w.lanes + fused.filled)
                zeros(w, self.scratch, behind, fused.behind - 2 * w.lanes)
            full, rest = divmod(fused.first.outputs, self.group)
            with w.loop(full) as group:
                self._channels(group, self.group, top)
            if rest:
                self._channels(full, rest, top)
            self._project(y)
            if fused.last.zeroed:
                self._clear(y)
            w.when_equal(strip, 0, self._pad)

    def _source(self, top: Any) -> tuple[Any, Any]:
        """What the first convolution of a strip reads: buffer, offset of its first tap.

        ``top`` is the first row of its result.
        """
        w, fused, grid, copy = self.w, self.fused, self.fused.source, self.fused.copy
        if copy is None:
            return self.image, w.fix(grid.origin + top * grid.pitch)
        rows = w.scratch(fused.first.inputs * copy.size)
        if isinstance(fused.first, Windowed):
            window = fused.first.window
            top = w.fix(top * window.stride[0] - window.padding[0])
        with w.loop(fused.first.inputs) as channel, w.loop(copy.rows) as row:
            # of rows that lie further outside any will do: they only lead to what is cleared
            y = w.fix(w.maximum(top + row, -grid.margin))
            y = w.fix(w.minimum(y, grid.height + grid.margin - 1))
            source = w.fix(channel * grid.size + grid.origin + y * grid.pitch - copy.left)
            target = w.fix(channel * copy.size + row * copy.pitch)

            def column(x: Any, source: Any = source, target: Any = target) -> None:
                if not copy.half:
                    w.store(rows, target + x, w.load(self.image, source + x))
                    return
                pair = [w.load(self.image, source + 2 * x + side * w.lanes) for side in (0, 1)]
                for side in (0, 1):
                    value = w.every_second(pair[0], pair[1], side)
                    w.store(rows, target + (side * copy.half + x), value)

            columns(w, copy.half or copy.pitch, 1, column)
        return rows, 0

    def _channels(self, group: Any, count: int, top: Any) -> None:
        """Expand ``count`` channels and run the window over them."""
        w, fused, window = self.w, self.fused, self.fused.window
        if isinstance(fused.first, Point):
            self._expand(fused.first, group, count)
        else:
            self._convolve(fused.first, group, count)
        taps = Taps(w, window.window, fused.half)
        weights = window.weights // window.outputs
        with w.loop(count) as number:
            channel = w.fix(group * self.group + number)
            self._clear_outside(number, top)
            sums = Depthwise(
                w,
                window.window,
                taps,
                self.window_weight,
                w.fix(channel * weights),
                self.window_bias[channel],
            )
            there = w.fix(channel * self.strip_size)

            def store(
                row: Any, x: Any, value: Any, there: Any = there, channel: Any = channel
            ) -> None:
                value = self.window_after.apply(value, 0, channel)
                w.store(self.windowed, there + row * window.grid.pitch + x, value)

            left = w.fix(number * fused.scratch_size + fused.lead)
            shape = (self.rows, window.grid.pitch)
            sums.write((self.scratch, left, fused.pitch), shape, store)

    def _clear_outside(self, number: Any, top: Any) -> None:
        """Zeros where the window reads what lies outside the image."""
        w, fused, grid = self.w, self.fused, self.fused.first.grid
        start = w.fix(number * fused.scratch_size + w.lanes)
        with w.loop(fused.source_rows) as row:
            for column in fused.outside:
                w.store_one(self.scratch, start + row * fused.pitch + column, w.zero)
        vectors = ceil_div(fused.pitch, w.lanes)

        def clear(first: Any, count: Any) -> None:
            with w.loop(count) as row, w.loop(vectors) as vector:
                last = fused.pitch - w.lanes
                x = vector * w.lanes if fused.pitch % w.lanes == 0 else None
                x = w.minimum(vector * w.lanes, last) if x is None else x
                w.store(self.scratch, start + (first + row) * fused.pitch + x, w.splat(0.0))

        clear(0, w.fix(w.maximum(-top, 0)))
        inside = w.fix(w.minimum(grid.height - top, fused.source_rows))
        clear(inside, fused.source_rows - inside)

    def _expand(self, first: Point, group: Any, count: int) -> None:
        """The rows of a strip of a pointwise convolution, as one long row."""
        w, fused, form = self.w, self.fused, self.fused.first_form
        assert form is not None
        vectors = min(form.vectors, fused.filled // w.lanes)

        def tile(x: Any) -> None:
            base = w.fix(self.source_at + x)
            sums = Sums(w, count, vectors)
            channel = w.fix(group * form.rows)
            sums.set(lambda row, _: w.splat(self.bias[channel + row]))
            self.weights.write(sums, self.source, base, group)
            for row in range(count):
                for vector in range(vectors):
                    value = self.first_after.apply(sums.get(row, vector), 0, channel + row)
                    at = row * fused.scratch_size + w.lanes + x + vector * w.lanes
                    w.store(self.scratch, at, value)

        columns(w, fused.filled, vectors, tile)

    def _convolve(self, first: Windowed, group: Any, count: int) -> None:
        """The rows of a strip of a convolution with a window."""
        w, fused, grid = self.w, self.fused, self.fused.first.grid
        vectors = min(VECTORS, grid.pitch // w.lanes)
        copy = fused.copy
        assert copy is not None
        taps = Taps(w, first.window, copy.half)
        with w.loop(fused.source_rows) as row:
            left = w.fix(self.source_at + row * (first.window.stride[0] * copy.pitch))

            def column(x: Any) -> None:
                at = w.fix(w.lanes + row * fused.pitch + x)

                def store(output: int, vector: int, value: Any) -> None:
                    value = self.first_after.apply(value, 0, group * OUTPUTS + output)
                    there = output * fused.scratch_size + at + vector * w.lanes
                    w.store(self.scratch, there, value)

                conv_tile(
                    w,
                    first,
                    taps,
                    (self.source, w.fix(left + x * taps.stride), copy.size, copy.pitch),
                    (self.weight, self.bias, group),
                    (count, vectors),
                    store,
                )

            columns(w, grid.pitch, vectors, column)

    def _project(self, y: Any) -> None:
        """The last convolution over the strip, all outputs of a tile of pixels at once."""
        w, last, form = self.w, self.fused.last, self.fused.last_form
        grid = last.grid
        full, rest = divmod(last.outputs, form.rows)
        pixels = self.rows * grid.pitch
        vectors = min(form.vectors, pixels // w.lanes)

        def tile(x: Any) -> None:
            def outputs(group: Any, count: int) -> None:
                sums = Sums(w, count, vectors)
                channel = w.fix(group * form.rows)
                sums.set(lambda row, _: w.splat(self.last_bias[channel + row]))
                self.last.write(sums, self.windowed, x, group)
                for row in range(count):
                    there = (channel + row) * grid.size + grid.origin + y * grid.pitch + x
                    there = w.fix(there)
                    for vector in range(vectors):
                        at = there + vector * w.lanes
                        value = self.after.apply(sums.get(row, vector), at, channel + row)
                        w.store(self.out, at, value)

            with w.loop(full) as group:
                outputs(group, form.rows)
            if rest:
                outputs(full, rest)

        columns(w, pixels, vectors, tile)

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
