"""What each layer of an ONNX file answers in ONNX Runtime.

A convolution is named after its weight, which has the name that it has in the network. Integers
are read where they are integers, behind the convolution's own ``QuantizeLinear``: read as real
numbers, they would keep ONNX Runtime from using its integer kernels, which may be what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.extras import require

ACTIVATIONS = {"Relu", "Clip"}


class _Tensor(NamedTuple):
    """A tensor of the file, and how its integers are read."""

    name: str
    scale: float = 1.0
    zero: float = 0.0


def trace(
    path: Any,
    open_session: Callable[[bytes], Any],
    image_name: str,
    images: Iterable[NDArray[Any]],
) -> Iterator[dict[str, NDArray[Any]]]:
    """For each image, real values by layer, (1, channels, height, width)."""
    onnx = require("onnx", extra="onnx")
    model = onnx.load(str(path))
    found = _layers(onnx, model)
    already = {value.name for value in model.graph.output}
    for name in {tensor.name for tensor in found.values()} - already:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = open_session(model.SerializeToString())
    wanted = [tensor.name for tensor in found.values()]
    for image in images:
        answers = session.run(wanted, {image_name: image})
        yield {
            layer: (values.astype(np.float32) - tensor.zero) * tensor.scale
            for (layer, tensor), values in zip(found.items(), answers, strict=True)
        }


def _layers(onnx: Any, model: Any) -> dict[str, _Tensor]:
    graph = model.graph
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {entry.name: entry for entry in graph.initializer}

    def number(name: str) -> float:
        return float(onnx.numpy_helper.to_array(constants[name]))

    found = {}
    for node in graph.node:
        layer, dot, _ = node.input[1].partition(".weight") if node.op_type == "Conv" else ("",) * 3
        if not dot:
            continue
        tensor, behind = _Tensor(node.output[0]), readers.get(node.output[0], [])
        if len(behind) == 1 and behind[0].op_type in ACTIVATIONS:
            tensor = _Tensor(behind[0].output[0])
            behind = readers.get(tensor.name, [])
        rounding = next((one for one in behind if one.op_type == "QuantizeLinear"), None)
        if rounding is not None:
            _, scale, zero = rounding.input
            tensor = _Tensor(rounding.output[0], number(scale), number(zero))
        found[layer] = tensor
    return found
