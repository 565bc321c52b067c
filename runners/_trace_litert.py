"""What each layer of a TensorFlow Lite file answers, by the interpreter's own kernels.

XNNPACK keeps inner tensors to itself and is left out here; its integers differ by one at most. A
convolution is named after the scope of its weight, which is its name in the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.extras import require

CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}


def trace(
    path: Path, threads: int, images: Iterable[NDArray[Any]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """For each image, real values by layer, (1, channels, height, width)."""
    litert = require("ai_edge_litert.interpreter", extra="litert")
    interpreter = litert.Interpreter(
        model_path=str(path),
        num_threads=threads,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    layers = {}
    for operator in interpreter._get_ops_details():
        if operator["op_name"] in CONVOLUTIONS:
            layer, slash, _ = details[operator["inputs"][1]]["name"].rpartition("/")
            if slash:
                layers[layer.rpartition(";")[2]] = details[operator["outputs"][0]]
    (image_detail,) = interpreter.get_input_details()
    for image in images:
        interpreter.set_tensor(image_detail["index"], image)
        interpreter.invoke()
        yield {name: _real(interpreter, detail) for name, detail in layers.items()}


def _real(interpreter: Any, detail: Any) -> NDArray[np.float32]:
    scale, zero = detail["quantization"]
    values = interpreter.get_tensor(detail["index"]).astype(np.float32)
    real: NDArray[np.float32] = (values - zero) * np.float32(scale) if scale else values
    return real.transpose(0, 3, 1, 2)
