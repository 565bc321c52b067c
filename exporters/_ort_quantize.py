"""Static quantization of an ONNX model by ONNX Runtime's tools, in the QDQ form.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (MIT). Activations
uint8 per tensor and weights int8 per output channel: the pair whose kernels are fast on x86 (both
signed, or both unsigned, run slower than float there).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters._capture import INPUT, calibration_images
from harness.extras import require
from harness.interfaces import ExportJob

CALIBRATIONS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""Values of the option ``calibration`` with ONNX Runtime's names for them."""

_TAIL = frozenset({"Concat", "Flatten", "Reshape", "Transpose"})


def quantize(source: Path, path: Path, job: ExportJob, *, method: str, reduce_range: bool) -> None:
    """Quantize the float model in ``source`` and write it to ``path``; its edges stay float."""
    quantization = require("onnxruntime.quantization", extra="onnx")
    shapes = require("onnxruntime.quantization.shape_inference", extra="onnx")
    prepared = source.with_suffix(".prepared.onnx")
    # sizes are fixed, so that onnx's own shape inference knows them all
    shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    extra: dict[str, Any] = {}
    reader: Any = _Reader(job)
    if method != "minmax":
        # histograms need every activation of an image: take one image at a time
        reader = _SlicedReader(job)
        extra["CalibStridedMinMax"] = 1
    quantization.quantize_static(
        str(prepared),
        str(path),
        reader,
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=tail(require("onnx", extra="onnx").load(str(prepared))),
        calibrate_method=getattr(quantization.CalibrationMethod, CALIBRATIONS[method]),
        extra_options=extra,
    )


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

    def __init__(self, job: ExportJob) -> None:
        self._images: Iterator[NDArray[np.float32]] = calibration_images(job)

    def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image}


class _SlicedReader:
    """The same with a length, handing on only the images of the range that was set."""

    def __init__(self, job: ExportJob) -> None:
        self._count = sum(1 for _ in calibration_images(job))
        self._images = calibration_images(job)
        self._left = 0

    def __len__(self) -> int:
        return self._count

    def set_range(self, start_index: int, end_index: int) -> None:
        """Ranges come in order, without gaps."""
        self._left = end_index - start_index

    def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
        if self._left == 0:
            return None
        self._left -= 1
        return {INPUT: next(self._images)}
