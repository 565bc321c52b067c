"""PyTorch, int8, by PT2E quantization (torchao) and AOTInductor.

PT2E: https://docs.pytorch.org/ao/stable/pt2e_quantization/index.html (BSD-3), with the quantizer
for Inductor on x86: activations uint8 per tensor, weights int8 per output channel, the outputs of
the heads stay float. Option ``package``: ``aoti`` compiles the integer kernels for this CPU and
needs a C++ compiler; activations have 7 bits where its sums would overflow
(`exporters._int8_sums`). ``export`` keeps the quantized graph, which runs anywhere but converts
back to float for every convolution, slower than float itself. ``calibration`` chooses the ranges of
activations (`harness.ranges`), ``keep_float`` names layers that stay float
(`exporters._keep_float`). Neither needs the model class or
torchao where it runs. Tensors: image (1, 3, h, w), logits (1, priors, classes), offsets
(1, priors, 4), all float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from exporters._aoti import missing_compiler
from exporters._capture import bad_choice
from exporters._packages import FORMATS, write_package
from exporters._pt2e import quantize, reduced
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.ranges import METHODS_OF
from harness.records import ModelSpec, Options, Scalar


@EXPORTERS.register
class TorchInt8(Exporter):
    """Calibrated on images; option ``package``."""

    name = "torch_int8"
    format = "torch_aoti"
    precision: ClassVar[Literal["float32", "int8"]] = "int8"
    calibrates = True
    modules = ("torch", "torchao")
    extra = "torch"
    typical_export_s = 90.0
    options: ClassVar[Options] = {"package": "aoti", "calibration": "mse", "keep_float": None}

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """An unknown package, or no compiler for ``package=aoti``."""
        del spec  # any model
        wrong = bad_choice("package", options["package"], FORMATS) or bad_choice(
            "calibration", options["calibration"], METHODS_OF
        )
        if wrong or options["package"] == "export":
            return wrong
        return missing_compiler(self.name)

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.pt2``."""
        done = write_package(quantize(job), job)
        note = f"activations have {7 if reduced(job) else 8} bits"
        return dataclasses.replace(done, notes=(*done.notes, note))
