"""What each layer of a captured graph answers; its layers know their names in the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray

from harness.extras import require

ACTIVATIONS = ("aten.relu", "aten.relu_", "aten.relu6", "aten.hardtanh", "aten.clamp")


def trace(module: Any, images: Iterable[NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """For each image, real values by layer, (1, channels, height, width)."""
    torch = require("torch", extra="torch")
    layers = _layers(module)
    values: dict[str, Any] = {}

    fx = require("torch.fx", extra="torch")
    interpreter = fx.Interpreter(module)
    answered = interpreter.run_node

    def run_node(node: Any) -> Any:
        value = answered(node)
        if node in layers:
            values[layers[node]] = value.clone().numpy()
        return value

    interpreter.run_node = run_node
    for image in images:
        with torch.inference_mode():
            interpreter.run(torch.from_numpy(image))
        yield dict(values)


def _layers(module: Any) -> dict[Any, str]:
    """The node that holds each convolution's output, behind its activation and its rounding."""
    found = {}
    for node in module.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if "conv2d" not in str(node.target) or not stack:
            continue
        last = node
        for kinds in (ACTIVATIONS, ("quantize_per_tensor",), ("dequantize_per_tensor",)):
            behind = list(last.users)
            if behind and any(kind in str(behind[0].target) for kind in kinds):
                last = behind[0]
        found[last] = str(list(stack.values())[-1][0])
    return found
