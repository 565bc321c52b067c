"""PyTorch, float32: the baseline that the other exports are compared with.

Format: ``torch.export`` (https://docs.pytorch.org/docs/stable/export.html, BSD-3), loadable
without the model class. Batch norms are folded and weights lie in channels_last. Option
``package``: ``export`` is the graph, run operator by operator; ``aoti`` is the graph compiled by
AOTInductor for this CPU, which needs a C++ compiler and shows what quantization alone brings to
torch_int8. Option ``outputs`` as `exporters._outputs` says, without suppression. Tensors: image
(batch, 3, h, w), logits (batch, priors, classes), offsets (batch, priors, 4), or scores and boxes,
all float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from exporters._aoti import missing_compiler
from exporters._capture import bad_choice, bad_count, capture, toolchain
from exporters._fold import fold_batch_norms
from exporters._outputs import answers, bad_outputs, kind_of
from exporters._packages import FORMATS, write_package
from exporters._torch_tail import ABLE, with_tail
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.records import ModelSpec, Options, Scalar


@EXPORTERS.register
class TorchFloat(Exporter):
    """The float graph, batch norms folded."""

    name = "torch_float"
    format = "torch_export"
    precision: ClassVar[Literal["float32", "int8"]] = "float32"
    modules = ("torch",)
    extra = "torch"
    typical_export_s = 20.0
    options: ClassVar[Options] = {
        "package": "export",
        "batch": 1,
        "outputs": "heads",
    }

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """An unknown package, a batch size below 1, suppression, no compiler for ``aoti``."""
        wrong = (
            bad_choice("package", options["package"], FORMATS)
            or bad_count("batch", options["batch"], 1, 1024)
            or bad_outputs(self.name, spec, options, ABLE)
        )
        if wrong or options["package"] == "export":
            return wrong
        return missing_compiler(self.name)

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.pt2``."""
        batch, kind = int(job.options["batch"] or 1), kind_of(job.options)
        with toolchain("torch.export", job.spec.name):
            network = with_tail(job.network, job.spec, kind)
            module = capture(network, job.spec, batch).module(check_guards=False)
            fold_batch_norms(module)
            program = capture(module, job.spec, batch)
        made = write_package(program, job, batch)
        return replace(made, output_kind=kind, outputs=answers(job.spec, kind, batch))
