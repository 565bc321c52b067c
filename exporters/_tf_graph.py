"""A traced torch network as a TensorFlow function over an NHWC image."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from exporters import _tf_ops, _tf_windows  # noqa: F401  # they fill the table
from exporters._keep_float import scope_of
from exporters._tf_trace import Traced
from exporters._tf_values import HANDLERS, NHWC, Call, Value, padded, plain
from harness.errors import ExportFailed


def translate(tf: Any, traced: Traced, image: Any) -> tuple[Any, ...]:
    """Run the traced calls on ``image``, a TensorFlow tensor (n, h, w, 3).

    Returns:
        the outputs with torch's axis order.

    Raises:
        ExportFailed: an operator that the table does not hold, or one whose arguments cannot be
            expressed.
    """
    values: dict[Any, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            return tuple(plain(tf, padded(tf, values[item])) for item in node.args[0])
        if node.op == "call_function":
            values[node] = _lower(tf, node, values)
        elif node.name == traced.image:
            values[node] = Value(tensor=image, order=NHWC)
        else:
            values[node] = traced.constants[node.name]
    raise ExportFailed("the traced network has no output")


def _lower(tf: Any, node: Any, values: dict[Any, Any]) -> Value:
    schema = getattr(node.target, "_schema", None)
    where = f"operator {node.target} (node {node.name})"
    handler = HANDLERS.get(_functional_name(node))
    if handler is None or schema is None:
        raise ExportFailed(
            f"{where} has no TensorFlow Lite counterpart here: replace it in the network or add a"
            " handler to exporters/_tf_ops.py"
        )
    call = Call(tf=tf, where=where, shape=tuple(node.meta["val"].shape))
    takes_padding, scope = _functional_name(node) == "conv2d", scope_of(node)
    arguments = [_resolve(tf, item, values, takes_padding) for item in node.args]
    named = {key: _resolve(tf, item, values, takes_padding) for key, item in node.kwargs.items()}
    try:
        with tf.name_scope(scope) if takes_padding and scope else nullcontext():
            result = handler(call, *arguments, **named)
    except ExportFailed:
        raise
    except Exception as error:  # TensorFlow refuses in many ways; the sentence names the operator
        raise call.refuse(f"{type(error).__name__}: {error}") from error
    if schema.is_mutable:
        _refuse_aliases(call, node)
        values[node.args[0]] = result
    return result


def _functional_name(node: Any) -> str:
    """``relu`` for both ``aten.relu.default`` and the in-place ``aten.relu_.default``."""
    parts = str(node.target).split(".")
    return parts[1].rstrip("_") if parts[0] == "aten" and len(parts) > 1 else ""


def _resolve(tf: Any, item: Any, values: dict[Any, Any], takes_padding: bool) -> Any:
    if isinstance(item, list | tuple):
        return [_resolve(tf, part, values, takes_padding) for part in item]
    if type(item).__name__ != "Node":
        return item
    value = values[item]
    return padded(tf, value) if isinstance(value, Value) and not takes_padding else value


def _refuse_aliases(call: Call, node: Any) -> None:
    """An in-place operator also changes the views of its tensor, which we do not follow."""
    mutated = node.args[0]
    for relative in (mutated, *mutated.users):
        schema = getattr(relative.target, "_schema", None)
        if schema is None or schema.is_mutable:
            continue
        if any(result.alias_info is not None for result in schema.returns):
            raise call.refuse(f"it changes a tensor in place that {relative.target} views")
