"""The two kinds of ``.pt2`` file: a graph, or the library compiled from it."""

from __future__ import annotations

from typing import Any

from exporters._aoti import NOTE, compile_package
from exporters._capture import tensors, toolchain
from harness.extras import require
from harness.interfaces import Exported, ExportJob

FILE = "model.pt2"
FORMATS = {"export": "torch_export", "aoti": "torch_aoti"}
"""Values of the option ``package`` with the format that each makes."""


def write_package(program: Any, job: ExportJob, batch: int = 1) -> Exported:
    """Write an ``ExportedProgram`` as the option ``package`` says."""
    package = str(job.options["package"])
    path = job.folder / FILE
    if package == "aoti":
        with toolchain("AOTInductor", job.spec.name, "package=export needs no compiler"):
            compile_package(program, path)
    else:
        torch = require("torch", extra="torch")
        with toolchain("torch.export.save", job.spec.name):
            torch.export.save(program, path)
    inputs, outputs = tensors(job.spec, batch)
    return Exported(
        files=[FILE],
        inputs=inputs,
        outputs=outputs,
        toolchain={},
        notes=(NOTE,) if package == "aoti" else (),
        format=FORMATS[package],
    )
