"""Static quantization of an ONNX model by ONNX Runtime's tools, in the QDQ form.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (MIT). Activations
uint8 per tensor and weights int8 per output channel: the pair whose kernels are fast on x86 (both
signed, or both unsigned, run slower than float there).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters._capture import INPUT, calibration_images
from harness.extras import require
from harness.interfaces import ExportJob
from harness.ranges import Observed, choose

_TAIL = frozenset({"Concat", "Flatten", "Reshape", "Transpose"})


def quantize(
    source: Path,
    path: Path,
    job: ExportJob,
    *,
    method: str,
    reduce_range: bool,
    keep: Collection[str] = (),
) -> None:
    """Quantize the float model in ``source`` and write it to ``path``; its edges stay float.

    Args:
        method: one of `harness.ranges.METHODS`.
        keep: layers that stay float.
    """
    quantization = require("onnxruntime.quantization", extra="onnx")
    shapes = require("onnxruntime.quantization.shape_inference", extra="onnx")
    onnx = require("onnx", extra="onnx")
    prepared = source.with_suffix(".prepared.onnx")
    # sizes are fixed, so that onnx's own shape inference knows them all
    shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(str(prepared))
    images, extra = calibration_images(job), {}
    if method != "minmax":  # ONNX Runtime's own; the others are ours, and then it need not look
        extra["TensorQuantOverrides"] = {
            name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
            for name, (low, high) in _ranges(onnx, model, job, method).items()
        }
        images = iter([next(images)])
    quantization.quantize_static(
        str(prepared),
        str(path),
        _Reader(images),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=[*tail(model), *convolutions(model, keep)],
        calibrate_method=quantization.CalibrationMethod.MinMax,
        extra_options=extra,
    )


def convolutions(model: Any, layers: Collection[str]) -> list[str]:
    """Names of the nodes that are these layers: a convolution's weight has its layer's name."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1].partition(".weight")[0] in layers
    ]


def _ranges(onnx: Any, model: Any, job: ExportJob, method: str) -> dict[str, tuple[float, float]]:
    """The range of every tensor that depends on the image."""
    ort = require("onnxruntime", extra="onnx")
    given = {entry.name for entry in model.graph.initializer}
    typed = (*model.graph.value_info, *model.graph.output)
    real = {v.name for v in typed if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    names = [name for node in model.graph.node for name in node.output if name in real - given]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    answered = {value.name for value in model.graph.output}
    watched.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in answered
    )
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = {name: Observed() for name in (INPUT, *names)}
    generator = np.random.default_rng(0)
    for image in calibration_images(job):
        answers = session.run(names, {INPUT: image})
        for name, values in zip(seen, (image, *answers), strict=True):
            seen[name].see(values, generator)
    return {name: choose([observed], method) for name, observed in seen.items()}


def tail(model: Any) -> list[str]:
    """Names of the nodes between the last convolutions and the outputs.

    They only move numbers. Kept in float, each feature map keeps a scale of its own instead of one
    for the whole head.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    pending = [value.name for value in model.graph.output]
    found: dict[str, None] = {}
    while pending:
        node = producers.get(pending.pop())
        if node is not None and node.op_type in _TAIL:
            found[node.name] = None
            pending.extend(node.input)
    return list(found)


class _Reader:
    """Hands calibration images to ONNX Runtime, one pass."""

    def __init__(self, images: Iterator[NDArray[np.float32]]) -> None:
        self._images = images

    def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image}
