"""ONNX, float32.

Format: https://onnx.ai (Apache-2.0). Batch norms are folded; one input size. Options: ``opset`` is
the version of the operator set, ``batch`` the number of images in a call; ``outputs`` and ``names``
as `exporters._outputs` and `exporters._onnx_tail` say. Tensors: image (batch, 3, h, w), logits
(batch, priors, classes), offsets (batch, priors, 4), or what ``outputs`` names, all float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from exporters._capture import bad_count
from exporters._onnx import FILE, OPSET, OPSETS, float_model, write
from exporters._onnx_tail import OPTIONS, attach, bad_tail, exported
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.records import ModelSpec, Options, Scalar


@EXPORTERS.register
class OnnxFloat(Exporter):
    """Float32 weights and activations."""

    name = "onnx_float"
    format = "onnx"
    precision: ClassVar[Literal["float32", "int8"]] = "float32"
    modules = ("torch", "onnx", "onnxscript")
    extra = "onnx"
    typical_export_s = 25.0
    options: ClassVar[Options] = {"opset": OPSET, "batch": 1, **OPTIONS}

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """An operator set or a batch size out of range; outputs that cannot be made."""
        return (
            bad_count("opset", options["opset"], *OPSETS)
            or bad_count("batch", options["batch"], 1, 1024)
            or bad_tail(self.name, spec, options)
        )

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.onnx``."""
        batch = int(job.options["batch"] or 1)
        model = float_model(job, opset=int(job.options["opset"] or OPSET), batch=batch)
        write(attach(model, job, batch), job.folder / FILE)
        return exported(job, batch)
