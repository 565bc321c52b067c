"""A network as an ONNX model, by torch's exporter for captured graphs.

The older TorchScript exporter takes a tenth of the time for the same operators, but torch announces
its removal; this one costs a few seconds and hands batch sizes on cleanly. It folds batch norms.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from exporters._capture import INPUT, OUTPUTS, capture, tensors, toolchain
from harness.errors import ExportFailed
from harness.extras import require
from harness.interfaces import ExportJob

FILE = "model.onnx"
OPSET = 18
OPSETS = (18, 23)
"""Lowest and highest operator set that torch's exporter writes and `ort_cpu` was tested with."""


def float_model(job: ExportJob, *, opset: int = OPSET, batch: int = 1) -> Any:
    """The network as a ``ModelProto`` with one input size, checked, the same bytes each time."""
    onnx = require("onnx", extra="onnx")
    with toolchain("torch.onnx", job.spec.name), redirect_stdout(io.StringIO()):
        torch = require("torch", extra="onnx")
        exported = torch.onnx.export(
            capture(job.network, job.spec, batch),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            verbose=False,
        )
        model = exported.model_proto
    _forget_origin(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != opset:
        raise ExportFailed(
            f"torch.onnx wrote {job.spec.name} in opset {versions.get('')}, asked was {opset}:"
            f" choose opset {OPSET}"
        )
    with toolchain("onnx.checker", job.spec.name):
        onnx.checker.check_model(model, full_check=True)
        _check_tensors(onnx.shape_inference.infer_shapes(model, strict_mode=True), job, batch)
    return model


def write(model: Any, path: Path) -> None:
    """Write the model as one file, weights included."""
    onnx = require("onnx", extra="onnx")
    with toolchain("onnx", path.name):
        onnx.save(model, str(path))


def _forget_origin(model: Any) -> None:
    """Drop stack traces and module paths, which name files of the exporting machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for part in (*graph.input, *graph.output):
        part.ClearField("metadata_props")


def _check_tensors(model: Any, job: ExportJob, batch: int) -> None:
    """Names and shapes at the model's edges must be those that the manifest will say."""
    inputs, outputs = tensors(job.spec, batch)
    expected = {spec.name: spec.shape for spec in (*inputs, *outputs)}
    found = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.output)
    }
    if found != expected:
        raise ExportFailed(
            f"the network {job.spec.name} has the tensors {found} in ONNX, its spec says"
            f" {expected}: correct its priors, labels or image size"
        )
