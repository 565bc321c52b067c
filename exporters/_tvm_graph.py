"""Reading a Relax network into steps: convolutions with all that can be folded into them, the rest.

Folded into a convolution's weights: batch-norm, bias, multiplication by a constant per channel.
Folded into its kernel: zero padding before it; what follows it, as far as it is ReLU, ReLU6 or
another clip, the addition of a residual, a batch-norm. What no step describes stays a Relax
expression, to be lowered by TVM itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exporters._tvm_after import Add, Affine, After, Clip
from exporters._tvm_tiles import Window
from harness.extras import require

NAMES = "detbench_layers"
"""Attribute of an imported function: the names of its convolutions, in order."""

Doubles = NDArray[np.float64]


@dataclass
class Step:
    """One step of the network, in the order of execution.

    Attributes:
        kind: ``values`` does nothing but ``after``; ``relax`` is any other operator, ``expr``.
        out: the variable that the following steps read.
        source: the variable that it reads; None of a ``relax`` step.
        channels: (in, out).
        weight: (out, in / groups, kh, kw); like ``bias`` (out,), float64 until it is packed.
        after: what follows the sums, each with the variable or the (scale, shift) that it needs.
        first: of a depthwise convolution or a pool, the convolution that it alone reads.
        layer: name of a convolution in the network; empty where it is not known.
    """

    kind: Literal["conv", "pool", "values", "relax"]
    out: Any
    source: Any = None
    expr: Any = None
    window: Window = field(default_factory=lambda: Window(height=1, width=1))
    channels: tuple[int, int] = (0, 0)
    groups: int = 1
    weight: Doubles = field(default_factory=lambda: np.zeros(0))
    bias: Doubles = field(default_factory=lambda: np.zeros(0))
    after: list[tuple[After, Any]] = field(default_factory=list)
    first: Step | None = None
    layer: str = ""

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return self.kind == "pool" or (
            self.kind == "conv" and self.groups == self.channels[0] == self.channels[1]
        )

    @property
    def pointwise(self) -> bool:
        """Whether each output channel reads one pixel of every input channel."""
        return self.kind == "conv" and self.groups == 1 and self.window.pointwise

    @property
    def linear(self) -> bool:
        """Whether weights and bias can still be changed: nothing follows them yet."""
        return self.kind == "conv" and not self.after


def shape_of(expr: Any) -> tuple[int, ...]:
    """Static shape of a Relax tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape.values)


class Reader:
    """Reads the bindings of a function one by one.

    Attributes:
        steps: what was read.
        result: the function's result, an expression over the variables of the steps.
    """

    def __init__(self, function: Any) -> None:
        self._ir = require("tvm.ir", extra="tvm")
        self._relax = require("tvm.relax", extra="tvm")
        self.steps: list[Step] = []
        self.result = function.body.body
        self._constants: dict[Any, NDArray[Any]] = {}
        self._norms: dict[Any, Any] = {}
        self._producer: dict[Any, Step] = {}
        self._layers = iter([str(name) for name in (function.attrs or {}).get(NAMES, ())])
        bindings = [b for block in function.body.blocks for b in block.bindings]
        self._uses = self._count([*(b.value for b in bindings), self.result])
        for binding in bindings:
            self._read(binding.var, binding.value)
        self._join()

    def constant(self, expr: Any) -> NDArray[Any] | None:
        """The value of a constant expression, or None."""
        if isinstance(expr, self._ir.GenericConst):
            return np.asarray(expr.value.numpy())
        return self._constants.get(expr) if isinstance(expr, self._relax.Var) else None

    def _count(self, expressions: list[Any]) -> Counter[Any]:
        """How often each variable is read."""
        uses: Counter[Any] = Counter()
        pending = list(expressions)
        while pending:
            expr = pending.pop()
            if isinstance(expr, self._relax.Var):
                uses[expr] += 1
            elif isinstance(expr, self._relax.Tuple):
                pending.extend(expr.fields)
            elif isinstance(expr, self._relax.TupleGetItem):
                pending.append(expr.tuple_value)
            elif isinstance(expr, self._relax.Call):
                pending.extend(expr.args)
        return uses

    def _read(self, var: Any, expr: Any) -> None:
        norm = self._norms.get(expr.tuple_value) if self._is_field(expr) else None
        if norm is not None:
            if expr.index == 0 and self._uses[expr.tuple_value] == 1:
                self._norm(var, norm)
                return
            self._add(Step("relax", expr.tuple_value, expr=norm))
        name = self.name(expr)
        reader = getattr(self, f"_read_{name.rsplit('.', 1)[-1]}", None) if name else None
        if reader is None or not reader(var, expr):
            self._add(Step("relax", var, expr=expr))

    def name(self, expr: Any) -> str:
        """Name of the operator that ``expr`` calls, as ``relax.nn.conv2d``; else empty."""
        if isinstance(expr, self._relax.Call) and isinstance(expr.op, self._ir.Op):
            return str(expr.op.name)
        return ""

    def _is_field(self, expr: Any) -> bool:
        return isinstance(expr, self._relax.TupleGetItem)

    def _add(self, step: Step) -> bool:
        self.steps.append(step)
        self._producer[step.out] = step
        return True

    def only_use(self, expr: Any) -> Step | None:
        """The step that made ``expr``, when nothing else reads its result."""
        if not isinstance(expr, self._relax.Var) or self._uses[expr] != 1:
            return None
        return self._producer.get(expr)

    def _last(self, source: Any) -> Step | None:
        """The step to append what happens to ``source`` to; a new one where there is none to fit.

        None for anything but the activation of a single image.
        """
        step = self.only_use(source)
        if step is not None and step.kind != "relax":
            return step
        if not isinstance(source, self._relax.Var) or source in self._constants:
            return None
        shape = shape_of(source)
        if len(shape) != 4 or shape[0] != 1:
            return None
        return Step("values", None, source, channels=(shape[1], shape[1]))

    def _become(self, step: Step, var: Any) -> bool:
        """Let ``step`` produce ``var`` in place of what it produced, now.

        It moves to the end: what was appended to it may read steps that are younger than it.
        """
        if step.out is not None:
            self.steps.remove(step)
            del self._producer[step.out]
        step.out = var
        return self._add(step)

    def _join(self) -> None:
        """Give depthwise convolutions and pools the convolution that they alone read."""
        for step in list(self.steps):
            before = self.only_use(step.source) if step.depthwise else None
            if before is not None and before.kind == "conv" and before.groups == 1:
                step.first = before
                self.steps.remove(before)

    def _read_conv2d(self, var: Any, expr: Any) -> bool:
        layer = next(self._layers, "")
        weight = self.constant(expr.args[1])
        attrs, source = expr.attrs, expr.args[0]
        layouts = (str(attrs.data_layout), str(attrs.kernel_layout))
        if weight is None or layouts != ("NCHW", "OIHW") or weight.dtype != np.float32:
            return False
        padding = [int(extent) for extent in attrs.padding]
        before = self.only_use(source)
        extra = self._zero_padding(before.expr) if before is not None else None
        if before is not None and extra is not None:
            source = before.expr.args[0]
            padding = [own + more for own, more in zip(padding, extra, strict=True)]
        window = _window(shape_of(source), shape_of(var), weight.shape[2:], attrs, padding)
        if window is None:
            return False
        if before is not None and extra is not None:
            self.steps.remove(before)
        return self._add(
            Step(
                "conv",
                var,
                source,
                window=window,
                channels=(shape_of(source)[1], weight.shape[0]),
                groups=int(attrs.groups),
                weight=weight.astype(np.float64),
                bias=np.zeros(weight.shape[0]),
                layer=layer,
            )
        )

    def _zero_padding(self, expr: Any) -> tuple[int, int, int, int] | None:
        """(top, left, bottom, right) of a zero padding of the last two axes; None of all else."""
        if self.name(expr) != "relax.nn.pad" or str(expr.attrs.pad_mode) != "constant":
            return None
        widths = [int(width) for width in expr.attrs.pad_width]
        if float(expr.attrs.pad_value) != 0 or len(widths) != 8 or any(widths[:4]):
            return None
        return (widths[4], widths[6], widths[5], widths[7]) if min(widths) >= 0 else None

    def _read_max_pool2d(self, var: Any, expr: Any) -> bool:
        attrs, source = expr.attrs, expr.args[0]
        if str(attrs.layout) != "NCHW":
            return False
        padding = [int(extent) for extent in attrs.padding]
        window = _window(shape_of(source), shape_of(var), attrs.pool_size, attrs, padding)
        if window is None:
            return False
        channels = shape_of(source)[1]
        return self._add(Step("pool", var, source, window=window, channels=(channels, channels)))

    def _read_batch_norm(self, var: Any, expr: Any) -> bool:
        """Keep it until its first field is read: the others are statistics for training."""
        values = [self.constant(arg) for arg in expr.args[1:5]]
        axis = int(expr.attrs.axis)
        if any(value is None for value in values) or axis != 1 or self._last(expr.args[0]) is None:
            return False
        self._norms[var] = expr
        return True

    def _norm(self, var: Any, expr: Any) -> None:
        """Fold a batch-norm whose result is ``var``."""
        gamma, beta, mean, variance = (
            np.asarray(self.constant(arg), np.float64) for arg in expr.args[1:5]
        )
        scale = 1 / np.sqrt(variance + float(expr.attrs.epsilon))
        scale = scale * gamma if bool(expr.attrs.scale) else scale
        shift = (beta if bool(expr.attrs.center) else 0) - mean * scale
        step = self._last(expr.args[0])
        if step is None:
            raise AssertionError("_read_batch_norm asked the same")
        if step.linear:
            _scale(step, scale)
            step.bias = step.bias + shift
        else:
            step.after.append((Affine(), (scale.astype(np.float32), shift.astype(np.float32))))
        self._become(step, var)

    def _read_reshape(self, var: Any, expr: Any) -> bool:
        value = self.constant(expr.args[0])
        if value is None:
            return False
        self._constants[var] = value.reshape(shape_of(var))
        return True

    def _per_channel(self, expr: Any, step: Step) -> Doubles | None:
        """A constant as one value per output channel of ``step``, or None."""
        value = self.constant(expr)
        if value is None or value.size not in (1, step.channels[1]):
            return None
        if value.size > 1 and (value.ndim < 3 or value.shape[-3] != value.size):
            return None
        return np.broadcast_to(value.astype(np.float64).ravel(), (step.channels[1],))

    def _linear_by_constant(self, expr: Any) -> tuple[Step, Doubles] | None:
        """Of an operator on a convolution and a constant per channel: the two."""
        for one, other in (tuple(expr.args), tuple(expr.args)[::-1]):
            step = self.only_use(one)
            if step is not None and step.linear:
                value = self._per_channel(other, step)
                if value is not None:
                    return step, value
        return None

    def _read_add(self, var: Any, expr: Any) -> bool:
        found = self._linear_by_constant(expr)
        if found is not None:
            step, bias = found
            step.bias = step.bias + bias
            return self._become(step, var)
        left, right = expr.args
        if self.constant(left) is not None or self.constant(right) is not None:
            return False
        if shape_of(left) != shape_of(right):
            return False
        one, other = (left, right) if self._foldable(left) else (right, left)
        last = self._last(one)
        if last is None:
            return False
        last.after.append((Add(), other))
        return self._become(last, var)

    def _foldable(self, expr: Any) -> bool:
        step = self.only_use(expr)
        return step is not None and step.kind != "relax"

    def _read_multiply(self, var: Any, expr: Any) -> bool:
        found = self._linear_by_constant(expr)
        if found is None:
            return False
        _scale(*found)
        return self._become(found[0], var)

    def _read_relu(self, var: Any, expr: Any) -> bool:
        return self._bound(var, expr.args[0], 0.0, math.inf)

    def _read_clip(self, var: Any, expr: Any) -> bool:
        low, high = (float(bound.value) for bound in expr.args[1:3])
        return self._bound(var, expr.args[0], low, high)

    def _bound(self, var: Any, source: Any, low: float, high: float) -> bool:
        step = self._last(source)
        if step is None:
            return False
        bounds = Clip(None if low == -math.inf else low, None if high == math.inf else high)
        step.after.append((bounds, None))
        return self._become(step, var)


def _scale(step: Step, scale: Doubles) -> None:
    """Multiply the output channels of a convolution."""
    step.weight = step.weight * scale[:, None, None, None]
    step.bias = step.bias * scale


def _window(
    source: tuple[int, ...],
    result: tuple[int, ...],
    kernel: Any,
    attrs: Any,
    padding: list[int],
) -> Window | None:
    """The sliding window of a convolution or pool whose result has a known shape.

    The lower right padding follows from the result (a pool may round its extent up). None for
    batches, which the kernels do not know.
    """
    if len(source) != 4 or len(result) != 4 or source[0] != 1:
        return None
    window = Window(
        height=source[2],
        width=source[3],
        kernel=(int(kernel[0]), int(kernel[1])),
        stride=(int(attrs.strides[0]), int(attrs.strides[1])),
        padding=(padding[0], padding[1], padding[2], padding[3]),
        dilation=(int(attrs.dilation[0]), int(attrs.dilation[1])),
    )
    down = (result[2] - window.out_height) * window.stride[0]
    right = (result[3] - window.out_width) * window.stride[1]
    if not down and not right:
        return window
    top, left, bottom, end = window.padding
    return dataclasses.replace(window, padding=(top, left, bottom + down, end + right))
