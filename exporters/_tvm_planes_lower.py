"""From steps to a Relax module on padded planes, so that zero weights can be skipped.

Convolutions and depthwise convolutions run on planes; what these kernels do not know falls back to
the blocked ones of `_tvm_lower`, and anything else to TVM itself, with conversions in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from exporters import (
    _tvm_planes_copy,
    _tvm_planes_fused,
    _tvm_planes_pair,
    _tvm_planes_point,
    _tvm_planes_window,
)
from exporters._tvm_after import Add, Affine, Clip
from exporters._tvm_graph import Reader, Step, shape_of
from exporters._tvm_lower import Lowering
from exporters._tvm_planes import Grid, margin, reach
from exporters._tvm_planes_pair import Pair
from exporters._tvm_planes_point import Form, Point
from exporters._tvm_planes_strip import Fused
from exporters._tvm_planes_window import Windowed
from exporters._tvm_shown import Layout, Lowered
from exporters._tvm_target import CpuTarget

WIDEST_MARGIN = 3
"""Windows that reach farther over the edge run on blocked values."""

FUSED_BYTES = 1100 * 1024
"""Size of an expanded tensor from which on it pays not to write it to memory."""


@dataclass(frozen=True)
class Planes:
    """An activation in padded planes, the Relax variable ``var``."""

    var: Any
    channels: int
    grid: Grid


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A pointwise convolution of the network, with the number of its place."""

    number: int
    point: Point
    weight: Any


class Network:
    """What the steps of a network need of planes, before anything is emitted."""

    def __init__(self, reader: Reader, lanes: int) -> None:
        self.steps = [
            part for step in reader.steps for part in (step.first, step) if part is not None
        ]
        self._lanes = lanes
        windows = [step.window for step in self.steps if self._able(step)]
        self.margin = margin(windows)
        self._reader = reader
        self._read_by_windows = {
            step.source for step in self.steps if self._able(step) and not step.pointwise
        }

    def _able(self, step: Step) -> bool:
        dense = step.groups == 1 or step.depthwise
        return step.kind == "conv" and dense and _tvm_planes_window.fits(step.window, WIDEST_MARGIN)

    def able(self, step: Step) -> bool:
        """Whether a kernel on planes computes this step."""
        return self._able(step) and max(reach(step.window)) <= self.margin

    def grid(self, var: Any) -> Grid:
        """Of a four-dimensional variable."""
        _, _, height, width = shape_of(var)
        return Grid(height=height, width=width, margin=self.margin, lanes=self._lanes)

    def zeroed(self, var: Any) -> bool:
        """Whether a window reads the padding of a variable."""
        return var in self._read_by_windows

    def point(self, step: Step) -> Point:
        """A pointwise step."""
        return Point(
            grid=self.grid(step.out),
            inputs=step.channels[0],
            outputs=step.channels[1],
            zeroed=self.zeroed(step.out),
            after=tuple(after for after, _ in step.after),
        )

    def windowed(self, step: Step) -> Windowed:
        """A step with a window."""
        return Windowed(
            window=step.window,
            source=self.grid(step.source),
            grid=self.grid(step.out),
            inputs=0 if step.depthwise and step.channels[0] > 1 else step.channels[0],
            outputs=step.channels[1],
            zeroed=self.zeroed(step.out),
            after=tuple(after for after, _ in step.after),
        )

    def before(self, last: Step) -> tuple[Step, Step] | None:
        """The convolution and the window before a pointwise step, if one kernel does all three."""
        window = self._reader.only_use(last.source)
        first = window.first if window is not None else None
        if window is None or first is None or window.kind != "conv":
            return None
        able = all(self.able(step) for step in (first, window, last))
        able = able and first.groups == 1 and last.pointwise
        plain = all(isinstance(after, Clip) for step in (first, window) for after, _ in step.after)
        grid = self.grid(first.out)
        large = 4 * first.channels[1] * grid.size >= FUSED_BYTES
        fits = self.grid(window.out).pitch >= self._lanes and window.window.padding[1] > 0
        if able and plain and large and fits:
            return first, window
        return None

    def layers(self) -> Iterator[Layer]:
        """The pointwise convolutions, in order."""
        for number, step in enumerate(self.steps):
            if self.able(step) and step.pointwise:
                weight = step.weight[:, :, 0, 0].astype(np.float32)
                yield Layer(number=number, point=self.point(step), weight=weight)


def layers(module: Any, target: CpuTarget) -> list[Layer]:
    """The pointwise convolutions of a module."""
    return list(Network(Reader(module["main"]), target.lanes).layers())


def lower(module: Any, target: CpuTarget, forms: Mapping[int, Form]) -> Lowered:
    """``module`` on planes, its pointwise convolutions in ``forms`` by number."""
    return _PlanesLowering(module, target, forms).lowered()


class _PlanesLowering(Lowering):
    def __init__(self, module: Any, target: CpuTarget, forms: Mapping[int, Form]) -> None:
        self._forms = forms
        super().__init__(module, target)

    def _prepare(self) -> None:
        self._network = Network(self._reader, self._lanes)
        self._numbers = {id(step): number for number, step in enumerate(self._network.steps)}
        self._before: dict[int, tuple[Step, Step]] = {}
        for step in self._network.steps:
            found = self._network.before(step) if step.kind == "conv" else None
            # in a chain without residuals, a layer that ends three cannot begin the next three
            if found and id(found[0]) not in self._before:
                self._before[id(step)] = found
        self._inner = {id(window) for _, window in self._before.values()}

    def _emit(self, step: Step) -> Any:
        if id(step) in self._inner:
            return None  # its reader computes it
        if found := self._before.get(id(step)):
            return self._fused_on_planes(*found, step)
        if pair := self._pair(step):
            return self._pair_on_planes(step, pair)
        if step.first is not None and self._network.able(step):
            self._values[step.first.out] = self._emit(step.first)
        if self._network.able(step):
            return self._pointwise(step) if step.pointwise else self._windowed(step)
        if step.kind == "values" and isinstance(self._values.get(step.source), Planes):
            return self._values_on_planes(step)
        return super()._emit(step)

    def _pointwise(self, step: Step) -> Planes:
        point, form = self._network.point(step), self._form(step)
        packed = _packed(step, form, point.grid.size)
        arguments = [self._planes(step.source).var]
        arguments += map(self._relax.const, packed.arrays())
        arguments += self._rest(step, point.grid if point.zeroed else None)
        write = partial(_tvm_planes_point.kernel, point=point, form=form, sizes=packed.sizes)
        kind = f"{'sparse' if form.sparse else 'dense'} pointwise convolution"
        return self._on_planes(step, kind, (point, form, packed.sizes), arguments, write)

    def _form(self, step: Step) -> Form:
        """What was chosen for a pointwise step."""
        return self._forms[self._numbers[id(step)]]

    def _fused_form(self, step: Step) -> Form:
        """The same inside a kernel of several steps, which takes all inputs of a tile at once."""
        return dataclasses.replace(self._form(step), panel=0)

    def _fused_on_planes(self, first: Step, window: Step, last: Step) -> Planes:
        network = self._network
        pointwise = first.pointwise
        layer: Any = network.point(first) if pointwise else network.windowed(first)
        first_form = self._fused_form(first) if pointwise else None
        last_form = self._fused_form(last)
        fused = Fused(
            first=layer,
            window=network.windowed(window),
            last=network.point(last),
            first_form=first_form,
            last_form=last_form,
        )
        arguments = [self._planes(first.source).var]
        sizes: tuple[int, ...] = ()
        if first_form is not None:
            packed = _packed(first, first_form, fused.read_size)
            arguments += map(self._relax.const, packed.arrays())
            sizes = packed.sizes
        else:
            arguments.append(self._relax.const(_tvm_planes_window.pack(layer, first.weight)))
        arguments.append(self._relax.const(first.bias.astype(np.float32)))
        weights = _tvm_planes_window.pack(fused.window, window.weight)
        arguments += [self._relax.const(weights), self._relax.const(window.bias.astype(np.float32))]
        packed = _packed(last, last_form, fused.strip_size)
        arguments += [*map(self._relax.const, packed.arrays()), *self._rest(last, None)]
        both = (sizes, packed.sizes)
        write = partial(_tvm_planes_fused.kernel, fused=fused, sizes=both)
        name = "convolution, depthwise, pointwise" if not pointwise else "inverted residual"
        return self._on_planes(last, name, (fused, both), arguments, write)

    def _pair(self, step: Step) -> Pair | None:
        """A depthwise step with the pointwise one before it, if one kernel does both."""
        first, network = step.first, self._network
        if first is None or not first.pointwise or not all(map(network.able, (first, step))):
            return None
        if id(first) in self._before:
            return None  # it ends a strip's three
        form = self._fused_form(first)
        pair = Pair(first=network.point(first), window=network.windowed(step), form=form)
        return pair if pair.able else None

    def _pair_on_planes(self, step: Step, pair: Pair) -> Planes:
        first = step.first
        assert first is not None
        packed = _packed(first, pair.form, pair.first.grid.size)
        arguments = [self._planes(first.source).var, *map(self._relax.const, packed.arrays())]
        arguments.append(self._relax.const(first.bias.astype(np.float32)))
        arguments.append(self._relax.const(_tvm_planes_window.pack(pair.window, step.weight)))
        arguments += self._rest(step, None)
        write = partial(_tvm_planes_pair.kernel, pair=pair, sizes=packed.sizes)
        key = (pair, packed.sizes)
        return self._on_planes(step, "pointwise, depthwise convolution", key, arguments, write)

    def _windowed(self, step: Step) -> Planes:
        layer = self._network.windowed(step)
        arguments = [self._planes(step.source).var]
        arguments.append(self._relax.const(_tvm_planes_window.pack(layer, step.weight)))
        arguments += self._rest(step, None)
        kind = "direct convolution" if layer.inputs else "depthwise convolution"
        write = partial(_tvm_planes_window.kernel, layer=layer)
        return self._on_planes(step, kind, layer, arguments, write)

    def _values_on_planes(self, step: Step) -> Planes:
        source = self._planes(step.source)
        after = tuple(after for after, _ in step.after)
        zeroed = self._network.zeroed(step.out)
        rest = self._rest(step, source.grid if zeroed else None)[1:]
        write = partial(
            _tvm_planes_copy.values,
            channels=source.channels,
            grid=source.grid,
            after=after,
            zeroed=zeroed,
        )
        key = ("values", source.channels, source.grid, after, zeroed)
        return self._on_planes(step, "value by value", key, [source.var, *rest], write)

    def _rest(self, step: Step, mask: Grid | None) -> list[Any]:
        """The arguments after the weights: bias, those of the epilogue, the mask."""
        found = [self._relax.const(step.bias.astype(np.float32))]
        for after, needs in step.after:
            if isinstance(after, Add):
                found.append(self._planes(needs).var)
            elif isinstance(after, Affine):
                found += [self._relax.const(values) for values in needs]
        if mask is not None:
            found.append(self._relax.const(mask.inside()))
        return found

    def _on_planes(
        self,
        step: Step,
        kind: str,
        key: Hashable,
        arguments: list[Any],
        write: Callable[[str], Any],
    ) -> Planes:
        channels, grid = shape_of(step.out)[1], self._network.grid(step.out)
        layout = Layout(grid.pitch, grid.size, offset=grid.origin)
        size = channels * grid.size
        return Planes(
            self._kernel(step, kind, (key, write), arguments, layout, size), channels, grid
        )

    def _planes(self, var: Any) -> Planes:
        """The value of a four-dimensional variable in planes; converts any other, once."""
        value = self._values[var]
        if isinstance(value, Planes):
            return value
        _, channels, height, width = shape_of(var)
        grid = self._network.grid(var)
        flat = (channels * height * width,)
        plain = self._builder.emit(self._relax.op.reshape(self._plain(var), flat))
        function = self._function(
            ("from plain", channels, grid),
            f"to_padded_planes_{channels}_{height}x{width}",
            partial(_tvm_planes_copy.from_plain, channels=channels, grid=grid),
        )
        self._used["conversion to padded planes"] += 1
        made = Planes(self._call_tir(function, [plain], channels * grid.size), channels, grid)
        if not var.same_as(self._image):
            self._values[var] = made
        return made

    def _plain(self, var: Any) -> Any:
        value = self._values.get(var)
        if not isinstance(value, Planes):
            return super()._plain(var)
        channels, grid = value.channels, value.grid
        function = self._function(
            ("to plain", channels, grid),
            f"to_plain_{channels}_{grid.height}x{grid.width}",
            partial(_tvm_planes_copy.to_plain, channels=channels, grid=grid),
        )
        self._used["conversion to planes"] += 1
        size = channels * grid.height * grid.width
        flat = self._call_tir(function, [value.var], size)
        shape = (1, channels, grid.height, grid.width)
        return self._builder.emit(self._relax.op.reshape(flat, shape))

    def _to_nhwc(self, expr: Any) -> bool:
        axes = [int(axis) for axis in expr.attrs.axes or ()]
        planes = isinstance(self._values.get(expr.args[0]), Planes)
        return (axes == [0, 2, 3, 1] and planes) or super()._to_nhwc(expr)

    def _rows(self, value: Any) -> Any:
        if not isinstance(value, Planes):
            return super()._rows(value)
        channels, grid = value.channels, value.grid
        function = self._function(
            ("rows of planes", channels, grid),
            f"to_rows_{channels}_{grid.height}x{grid.width}",
            partial(_tvm_planes_copy.to_rows, channels=channels, grid=grid),
        )
        self._used["conversion to rows"] += 1
        flat = self._call_tir(function, [value.var], channels * grid.height * grid.width)
        shape = (1, grid.height, grid.width, channels)
        return self._builder.emit(self._relax.op.reshape(flat, shape))


def _packed(step: Step, form: Form, size: int) -> _tvm_planes_point.Packed:
    """The weights of a pointwise step that reads planes of ``size`` values."""
    return _tvm_planes_point.pack(step.weight[:, :, 0, 0].astype(np.float32), size, form)
