"""ONNX, int8: static quantization in the QDQ form.

Format: https://onnx.ai (Apache-2.0), quantized by ONNX Runtime (MIT): activations uint8 per tensor,
weights int8 per output channel, scheme of Jacob et al. 2018, arXiv 1712.05877. Options:
``calibration`` chooses the ranges of activations (`harness.ranges`); ``keep_float`` names layers
that stay float (`exporters._keep_float`); ``reduce_range`` uses 7 bits of the weights,
for x86 CPUs without VNNI, whose 16-bit sums saturate otherwise (null: as the exporting machine's
own CPU needs it); ``opset``; ``outputs`` and ``names`` as `exporters._outputs` and
`exporters._onnx_tail` say: what they add stays in float.
Tensors: image (1, 3, h, w), logits (1, priors, classes), offsets (1, priors, 4), or what
``outputs`` names, all float32.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

from exporters._capture import bad_choice, bad_count, check_calibration, toolchain
from exporters._int8_sums import saturates
from exporters._keep_float import kept
from exporters._onnx import FILE, OPSET, OPSETS, float_model, write
from exporters._onnx_tail import OPTIONS, attach, bad_tail, exported
from exporters._ort_quantize import quantize
from harness.extras import require
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.machine import machine_record
from harness.ranges import METHODS_OF
from harness.records import ModelSpec, Options, Scalar


@EXPORTERS.register
class OnnxInt8(Exporter):
    """Calibrated on images."""

    name = "onnx_int8"
    format = "onnx"
    precision: ClassVar[Literal["float32", "int8"]] = "int8"
    calibrates = True
    modules = ("torch", "onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    typical_export_s = 50.0
    options: ClassVar[Options] = {
        "calibration": "minmax",
        "reduce_range": None,
        "keep_float": None,
        "opset": OPSET,
        **OPTIONS,
    }

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """An unknown calibration method, an operator set out of range, outputs not possible."""
        return (
            bad_choice("calibration", options["calibration"], METHODS_OF)
            or _bad_reduce_range(options["reduce_range"])
            or bad_count("opset", options["opset"], *OPSETS)
            or bad_tail(self.name, spec, options)
        )

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.onnx``."""
        check_calibration(job)
        keep = kept(job)
        model = float_model(job, opset=int(job.options["opset"] or OPSET))
        asked = job.options["reduce_range"]
        reduced = saturates(machine_record()) if asked is None else bool(asked)
        path = job.folder / FILE
        with ExitStack() as stack:
            stack.enter_context(toolchain("ONNX Runtime", job.spec.name))
            # calibration reports its progress by print
            stack.enter_context(redirect_stdout(io.StringIO()))
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="detbench-")))
            write(model, scratch / FILE)
            quantize(
                scratch / FILE,
                path,
                job,
                method=str(job.options["calibration"]),
                reduce_range=reduced,
                keep=keep,
            )
        write(attach(require("onnx", extra="onnx").load(str(path)), job), path)
        done = exported(job)
        note = f"weights have {7 if reduced else 8} bits"
        return dataclasses.replace(done, notes=(*done.notes, note))


def _bad_reduce_range(value: Scalar) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    return f"option reduce_range={value} is no truth value: give true, false or null"
