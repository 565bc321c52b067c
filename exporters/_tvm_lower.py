"""From steps to a Relax module that calls hand-written kernels on blocked activations.

A value is either blocked (see `_tvm_tiles`), flat in one buffer, or plain, as Relax has it. Steps
with a kernel take and give blocked values; any other operator takes plain ones, and element-wise
ones run on the blocked buffer as it is. Conversions are written where the two meet.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import (
    _tvm_conv,
    _tvm_conv_tile,
    _tvm_depthwise,
    _tvm_fallback,
    _tvm_fused,
    _tvm_layout,
    _tvm_metaschedule,
)
from exporters._tvm_after import Add, Affine
from exporters._tvm_graph import Reader, Step, shape_of
from exporters._tvm_metaschedule import Scheduled
from exporters._tvm_shown import Layout, Lowered, Shown
from exporters._tvm_target import CpuTarget
from exporters._tvm_tiles import ceil_div
from exporters._tvm_tunable import Tunables
from harness.extras import require

ELEMENT_WISE = frozenset(
    {
        *("relax.abs", "relax.clip", "relax.exp", "relax.log", "relax.negative", "relax.sigmoid"),
        *("relax.sqrt", "relax.tanh", "relax.nn.gelu", "relax.nn.leakyrelu", "relax.nn.relu"),
        *("relax.nn.silu", "relax.add", "relax.subtract", "relax.multiply", "relax.divide"),
        *("relax.maximum", "relax.minimum"),
    }
)
"""Operators that work value by value, whatever the layout."""


@dataclass(frozen=True)
class Blocked:
    """A blocked activation in one flat buffer, the Relax variable ``var``."""

    var: Any
    channels: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Of one channel."""
        return self.height * self.width


def lower(module: Any, target: CpuTarget, tunables: Tunables | None = None) -> Lowered:
    """``module`` with its convolutions as kernels for ``target``."""
    return Lowering(module, target, tunables).lowered()


class Lowering:
    """Lowers a module when it is made.

    Attributes:
        module: the result.
    """

    def __init__(self, module: Any, target: CpuTarget, tunables: Tunables | None = None) -> None:
        self._tunables = tunables or Tunables(target.lanes, target.registers)
        self._relax = require("tvm.relax", extra="tvm")
        self._lanes, self._registers = target.lanes, target.registers
        self._builder = self._relax.BlockBuilder()
        self._kernels: dict[Hashable, Any] = {}
        self._values: dict[Any, Any] = {}
        self._used: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        self._shown = Shown()
        function = module["main"]
        self._reader = Reader(function)
        (image,) = function.params
        parameter = self._relax.Var("image", image.ty)
        self._image = image
        self._prepare()
        self._values[image] = parameter
        with self._builder.function("main", [parameter]):
            with self._builder.dataflow():
                for step in self._reader.steps:
                    self._values[step.out] = self._emit(step)
                result = self._builder.emit_output(self._plain_expr(self._reader.result))
            self._builder.emit_func_output(result)
        self.module = self._builder.get()

    def lowered(self) -> Lowered:
        """The result, with notes and the places of layers."""
        return Lowered(self.module, self.notes(), tuple(self._shown.outputs))

    def notes(self) -> tuple[str, ...]:
        """Which kernels were used, and which operators TVM lowers itself."""
        used = ", ".join(f"{count} {name}" for name, count in sorted(self._used.items()))
        left = ", ".join(f"{count} {name}" for name, count in sorted(self._left.items()))
        return (
            f"kernels for {self._lanes} lanes: {used or 'none'}",
            f"lowered by TVM itself, unscheduled: {left or 'none'}",
        )

    def _prepare(self) -> None:
        """Look at the steps before they are emitted."""

    def _emit(self, step: Step) -> Any:
        if step.kind == "relax":
            return self._other(step)
        if step.kind == "values":
            return self._value_by_value(step)
        if step.groups == 1 and step.kind == "conv":
            return self._conv(step)
        if step.first is not None:
            return self._fused(step, step.first)
        return self._depthwise(step) if step.depthwise else self._grouped(step)

    def _describe_conv(self, step: Step) -> _tvm_conv_tile.Conv:
        pointwise = step.window.pointwise
        return _tvm_conv_tile.Conv(
            window=step.window,
            inputs=step.channels[0],
            outputs=step.channels[1],
            planar=step.source.same_as(self._image) and not pointwise,
            after=tuple(after for after, _ in step.after),
        )

    def _describe_depthwise(self, step: Step) -> _tvm_depthwise.Depthwise:
        return _tvm_depthwise.Depthwise(
            window=step.window,
            channels=step.channels[0],
            pool=step.kind == "pool",
            after=tuple(after for after, _ in step.after),
        )

    def _conv(self, step: Step) -> Blocked:
        conv = self._describe_conv(step)
        if conv.window.pointwise:
            conv = dataclasses.replace(conv, window=conv.window.flattened())
        chosen = self._tunables.conv(conv, self._place(step))
        kind, tile = f"{self._kind(conv)} convolution", chosen
        if isinstance(chosen, Scheduled):
            kind, tile = f"{kind} by MetaSchedule", _tvm_metaschedule.TILE
        cut = _tvm_conv.plan(conv, self._lanes, self._registers, tile)
        write: Callable[[str], Any] = partial(_tvm_conv.kernel, conv=conv, cut=cut)
        if isinstance(chosen, Scheduled):
            write = chosen.write
        arguments = self._conv_arguments(step, conv, cut)
        return self._call(step, kind, conv, arguments, write)

    def _place(self, step: Step) -> str:
        _, outputs, height, width = shape_of(step.out)
        return f"{(step.first or step).channels[0]}→{outputs} at {height}×{width}"

    def _kind(self, conv: _tvm_conv_tile.Conv) -> str:
        return "pointwise" if conv.window.pointwise else "planar" if conv.planar else "direct"

    def _conv_arguments(
        self, step: Step, conv: _tvm_conv_tile.Conv, cut: _tvm_conv_tile.Plan
    ) -> list[Any]:
        image = self._flat_image() if conv.planar else self._blocked(step.source).var
        packed = _tvm_conv_tile.pack(conv, cut, step.weight, step.bias)
        return [image, *map(self._relax.const, packed), *self._needs(step)]

    def _depthwise_arguments(self, step: Step, layer: _tvm_depthwise.Depthwise) -> list[Any]:
        packed = (
            () if layer.pool else _tvm_depthwise.pack(layer, self._lanes, step.weight, step.bias)
        )
        return [*map(self._relax.const, packed), *self._needs(step)]

    def _needs(self, step: Step) -> list[Any]:
        """The arguments of a step's epilogue."""
        found: list[Any] = []
        for after, needs in step.after:
            if isinstance(after, Add):
                found.append(self._blocked(needs).var)
            elif isinstance(after, Affine):
                found += [self._relax.const(self._pad(values)) for values in needs]
        return found

    def _depthwise(self, step: Step) -> Blocked:
        layer = self._describe_depthwise(step)
        arguments = [self._blocked(step.source).var, *self._depthwise_arguments(step, layer)]
        write = partial(
            _tvm_depthwise.kernel, layer=layer, lanes=self._lanes, registers=self._registers
        )
        kind = "max pool" if layer.pool else "depthwise convolution"
        return self._call(step, kind, layer, arguments, write)

    def _fused(self, step: Step, first: Step) -> Blocked:
        """A convolution and the depthwise convolution or pool after it."""
        fused = _tvm_fused.Fused(
            conv=self._describe_conv(first), window=self._describe_depthwise(step)
        )
        chosen = self._tunables.fused(fused, f"{self._place(step)}, with window")
        strips = _tvm_fused.plan(fused, self._lanes, self._registers, chosen)
        arguments = self._conv_arguments(first, fused.conv, strips.cut)
        arguments += self._depthwise_arguments(step, fused.window)
        write = partial(_tvm_fused.kernel, fused=fused, strips=strips, registers=self._registers)
        last = "max pool" if fused.window.pool else "depthwise convolution"
        kind = f"{self._kind(fused.conv)} convolution with {last}"
        return self._call(step, kind, fused, arguments, write)

    def _value_by_value(self, step: Step) -> Blocked:
        source = self._blocked(step.source)
        after = tuple(after for after, _ in step.after)
        return self._call(
            step,
            "value by value",
            ("values", source.channels, source.pixels, after),
            [source.var, *self._needs(step)],
            lambda name: _tvm_layout.values(
                name, source.channels, source.pixels, self._lanes, after
            ),
        )

    def _call(
        self,
        step: Step,
        kind: str,
        key: Hashable,
        arguments: list[Any],
        write: Callable[[str], Any],
    ) -> Blocked:
        _, channels, height, width = shape_of(step.out)
        layout = Layout(width, height * width, self._lanes)
        size = self._size(channels, height * width)
        made = self._kernel(step, kind, (key, write), arguments, layout, size)
        return Blocked(made, channels, height, width)

    def _kernel(
        self,
        step: Step,
        kind: str,
        kernel: tuple[Hashable, Callable[[str], Any]],
        arguments: list[Any],
        layout: Layout,
        size: int,
    ) -> Any:
        """Call a kernel, (key, how it is written); those of one key are one function."""
        _, channels, height, width = shape_of(step.out)
        words = kind.replace(",", "").replace(" ", "_")
        name = f"{words}_{step.channels[0]}_{channels}_{height}x{width}"
        self._used[kind] += 1
        function = self._function(kernel[0], name, kernel[1])
        adds = [self._values[needs] for after, needs in step.after if isinstance(after, Add)]
        added = getattr(adds[0], "var", None) if adds else None
        self._shown.call(step, str(function.name_hint), arguments, added, layout)
        return self._call_tir(function, arguments, size)

    def _pad(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """One value per channel, up to whole vectors."""
        return np.pad(values, (0, -len(values) % self._lanes))

    def _grouped(self, step: Step) -> Any:
        """A convolution that no kernel knows, by TVM itself."""
        self._left["grouped convolution"] += 1
        return _tvm_fallback.convolution(step, self._builder.emit, self._plain)

    def _other(self, step: Step) -> Any:
        """Any other operator: to rows for a head, on blocked values where it may, else plain."""
        expr = step.expr
        name = self._reader.name(expr)
        if name == "relax.permute_dims" and self._to_nhwc(expr):
            return self._rows(self._values[expr.args[0]])
        if name in ELEMENT_WISE:
            value = self._element_wise(expr)
            if value is not None:
                return value
        if name not in ("relax.reshape", "relax.zeros_like", ""):
            self._left[name.removeprefix("relax.")] += 1
        return self._builder.emit(self._plain_expr(expr))

    def _to_nhwc(self, expr: Any) -> bool:
        axes = [int(axis) for axis in expr.attrs.axes or ()]
        source = self._values.get(expr.args[0])
        return axes == [0, 2, 3, 1] and isinstance(source, Blocked)

    def _rows(self, value: Blocked) -> Any:
        """(1, height, width, channels), plain."""
        key = ("rows", value.channels, value.pixels)
        function = self._function(
            key,
            f"to_rows_{value.channels}_{value.pixels}",
            lambda n: _tvm_layout.to_rows(n, value.channels, value.pixels, self._lanes),
        )
        self._used["conversion to rows"] += 1
        flat = self._call_tir(function, [value.var], value.channels * value.pixels)
        shape = (1, value.height, value.width, value.channels)
        return self._builder.emit(self._relax.op.reshape(flat, shape))

    def _element_wise(self, expr: Any) -> Blocked | None:
        """The operator on blocked buffers, where all its tensors are blocked or single numbers."""
        arguments: list[Any] = []
        like: Blocked | None = None
        for arg in expr.args:
            constant = self._reader.constant(arg)
            if isinstance(arg, self._relax.Var) and constant is None:
                value = self._values.get(arg)
                if not isinstance(value, Blocked):
                    return None
                if like is not None and (value.channels, value.pixels) != (
                    like.channels,
                    like.pixels,
                ):
                    return None
                like = value
                arguments.append(value.var)
            elif constant is not None and constant.size != 1:
                return None
            else:
                arguments.append(arg if constant is None else self._relax.const(constant.ravel()))
        if like is None:
            return None
        self._left[str(expr.op.name).removeprefix("relax.")] += 1
        call = self._relax.Call(expr.op, arguments, expr.attrs)
        return Blocked(self._builder.emit(call), like.channels, like.height, like.width)

    def _plain_expr(self, expr: Any) -> Any:
        """``expr`` over plain values."""
        relax = self._relax
        if isinstance(expr, relax.Var):
            return self._plain(expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._plain_expr(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._plain_expr(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            arguments = [self._plain_expr(arg) for arg in expr.args]
            return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
        return expr

    def _plain(self, var: Any) -> Any:
        """The value of a variable as Relax has it; converts a blocked one."""
        constant = self._reader.constant(var)
        if constant is not None:
            return self._relax.const(constant)
        value = self._values[var]
        if not isinstance(value, Blocked):
            return value
        function = self._function(
            ("planar", value.channels, value.pixels),
            f"to_planar_{value.channels}_{value.pixels}",
            lambda n: _tvm_layout.to_planar(n, value.channels, value.pixels, self._lanes),
        )
        self._used["conversion to planes"] += 1
        flat = self._call_tir(function, [value.var], value.channels * value.pixels)
        shape = (1, value.channels, value.height, value.width)
        return self._builder.emit(self._relax.op.reshape(flat, shape))

    def _blocked(self, var: Any) -> Blocked:
        """The value of a four-dimensional variable, blocked; converts a plain one, once."""
        value = self._values[var]
        if isinstance(value, Blocked):
            return value
        _, channels, height, width = shape_of(var)
        pixels = height * width
        flat = self._builder.emit(self._relax.op.reshape(self._plain(var), (channels * pixels,)))
        function = self._function(
            ("blocked", channels, pixels),
            f"to_blocked_{channels}_{pixels}",
            lambda name: _tvm_layout.to_blocked(name, channels, pixels, self._lanes),
        )
        self._used["conversion to blocks"] += 1
        made = self._call_tir(function, [flat], self._size(channels, pixels))
        return Blocked(made, channels, height, width)

    def _flat_image(self) -> Any:
        shape = shape_of(self._image)
        size = int(np.prod(shape))
        return self._builder.emit(self._relax.op.reshape(self._values[self._image], (size,)))

    def _size(self, channels: int, pixels: int) -> int:
        return ceil_div(channels, self._lanes) * self._lanes * pixels

    def _function(self, key: Hashable, name: str, write: Callable[[str], Any]) -> Any:
        if key not in self._kernels:
            unique = f"{name}_{len(self._kernels)}"
            self._kernels[key] = self._builder.add_func(write(unique), unique)
        return self._kernels[key]

    def _call_tir(self, function: Any, arguments: list[Any], size: int) -> Any:
        made = self._relax.TensorType((size,), "float32")
        return self._builder.emit(self._relax.call_tir(function, arguments, made))
