"""Elementwise operators, reductions and shapes in TensorFlow, one small function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters._tf_values import Call, Value, lowers, pair, plain, stored

Operand = Value | NDArray[Any] | float | int


def _plain_order(rank: int) -> tuple[int, ...]:
    return tuple(range(rank))


@lowers("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(call: Call, x: Value, output_size: Sequence[int]) -> Value:
    if pair(output_size) != (1, 1):
        raise call.refuse(f"an adaptive mean with output size {tuple(output_size)}, only (1, 1)")
    return _mean(call, x, (2, 3), keepdim=True)


@lowers("mean")
def _mean(
    call: Call, x: Value, dim: Sequence[int] = (), keepdim: bool = False, dtype: Any = None
) -> Value:
    if dtype is not None or not dim:
        raise call.refuse("a mean over all axes or with another dtype")
    axes = [x.axis(d) for d in dim]
    result = call.tf.reduce_mean(x.tensor, axes, keepdims=True)
    kept = replace(x, tensor=result)
    if keepdim:
        return kept
    flat = call.tf.reshape(plain(call.tf, kept), call.shape)
    return Value(tensor=flat, order=_plain_order(len(call.shape)))


@lowers("relu")
def _relu(call: Call, x: Value) -> Value:
    return replace(x, tensor=call.tf.nn.relu(x.tensor))


@lowers("relu6")
def _relu6(call: Call, x: Value) -> Value:
    return replace(x, tensor=call.tf.nn.relu6(x.tensor))


@lowers("clamp", "clip")
def _clamp(
    call: Call, x: Value, min_val: float | None = None, max_val: float | None = None
) -> Value:
    if min_val is None or max_val is None:
        raise call.refuse("a clamp with one bound")
    if (min_val, max_val) == (0, 6):
        return _relu6(call, x)
    return replace(x, tensor=call.tf.clip_by_value(x.tensor, float(min_val), float(max_val)))


@lowers("hardtanh")
def _hardtanh(call: Call, x: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    return _clamp(call, x, min_val, max_val)


@lowers("hardsigmoid")
def _hardsigmoid(call: Call, x: Value) -> Value:
    return replace(x, tensor=call.tf.nn.relu6(x.tensor + 3.0) * (1 / 6))


@lowers("hardswish")
def _hardswish(call: Call, x: Value) -> Value:
    # This very form is what the converter recognises as HARD_SWISH.
    return replace(x, tensor=x.tensor * call.tf.nn.relu6(x.tensor + 3.0) * (1 / 6))


@lowers("sigmoid")
def _sigmoid(call: Call, x: Value) -> Value:
    return replace(x, tensor=call.tf.sigmoid(x.tensor))


@lowers("add")
def _add(call: Call, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if alpha != 1:
        raise call.refuse(f"alpha = {alpha}")
    return _elementwise(call, call.tf.add, x, y)


@lowers("sub")
def _sub(call: Call, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if alpha != 1:
        raise call.refuse(f"alpha = {alpha}")
    return _elementwise(call, call.tf.subtract, x, y)


@lowers("mul")
def _mul(call: Call, x: Operand, y: Operand) -> Value:
    return _elementwise(call, call.tf.multiply, x, y)


@lowers("div")
def _div(call: Call, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise call.refuse(f"rounding mode '{rounding_mode}'")
    return _elementwise(call, call.tf.divide, x, y)


@lowers("minimum")
def _minimum(call: Call, x: Operand, y: Operand) -> Value:
    return _elementwise(call, call.tf.minimum, x, y)


def _elementwise(call: Call, function: Any, x: Operand, y: Operand) -> Value:
    """``function(x, y)`` in the stored order of the first operand of full rank."""
    rank = len(call.shape)
    like = next((v for v in (x, y) if isinstance(v, Value) and len(v.order) == rank), None)
    if like is None:
        raise call.refuse("operands that broadcast each other to a higher rank")
    tensors = [_operand(call, value, like.order) for value in (x, y)]
    return Value(tensor=function(*tensors), order=like.order)


def _operand(call: Call, value: Operand, order: tuple[int, ...]) -> Any:
    if isinstance(value, Value):
        if len(value.order) != len(order):
            raise call.refuse("operands of different rank")
        return stored(call.tf, value, order).tensor
    if isinstance(value, np.ndarray):
        full = value.reshape((1,) * (len(order) - value.ndim) + value.shape)
        return call.tf.constant(full.transpose(order))
    return float(value)


@lowers("permute")
def _permute(call: Call, x: Value, dims: Sequence[int]) -> Value:
    del call  # only the order changes
    positive = [dim % len(x.order) for dim in dims]
    return replace(x, order=tuple(positive.index(axis) for axis in x.order))


@lowers("contiguous", "clone", "dropout", "alias", "detach")
def _identity(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    del call  # memory formats and dropout mean nothing here
    return x


@lowers("view", "reshape", "flatten", "squeeze", "unsqueeze")
def _reshape(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    tensor = call.tf.reshape(plain(call.tf, x), call.shape)
    return Value(tensor=tensor, order=_plain_order(len(call.shape)))


@lowers("cat")
def _cat(call: Call, parts: Sequence[Value], dim: int = 0) -> Value:
    first = parts[0]
    tensors = [stored(call.tf, part, first.order).tensor for part in parts]
    return Value(tensor=call.tf.concat(tensors, first.axis(dim)), order=first.order)
