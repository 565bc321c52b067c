"""Dense float32 compiled by Apache TVM (https://tvm.apache.org, Apache-2.0) to a shared library.

Path: ``torch.export`` → Relax → LLVM → ``model.so``, loaded with ``relax.VirtualMachine``.
Tensors: image NCHW float32 → logits and offsets, (1, priors, classes) and (1, priors, 4) float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from exporters import _tvm_build, _tvm_import, _tvm_lower, _tvm_target
from harness.extras import require
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.records import ModelSpec, Options, Scalar, TensorSpec

LIBRARY = "model.so"


@EXPORTERS.register
class TvmDense(Exporter):
    """TVM on the CPU, untuned.

    Options:
        target: ``native``, or an LLVM CPU name of this machine's architecture (``x86-64-v3``).
    """

    name = "tvm_dense"
    format = "tvm"
    precision = "float32"
    modules = ("tvm", "torch")
    extra = "tvm"
    options: ClassVar[Options] = {"target": "native"}

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """A linker must be there."""
        if _tvm_target.linker() is None:
            return (
                f"{self.name} needs a C compiler to link {LIBRARY} and finds none of"
                f" {', '.join(_tvm_target.LINKERS)}: install the package gcc"
            )
        return None

    def export(self, job: ExportJob) -> Exported:
        """Compile. Raises ExportFailed."""
        tvm = require("tvm", extra="tvm")
        target = _tvm_target.resolve(str(job.options["target"]))
        module = _tvm_import.to_relax(job)
        outputs = module["main"].ret_ty.fields
        shapes = [tuple(int(extent) for extent in output.shape.values) for output in outputs]
        module, kernels = _tvm_lower.lower(module, target)
        _tvm_build.build(module, target, job.folder / LIBRARY)
        image = job.spec.image
        return Exported(
            files=(LIBRARY,),
            inputs=(
                TensorSpec(
                    name="image",
                    dtype="float32",
                    shape=(1, 3, image.height, image.width),
                    layout="NCHW",
                ),
            ),
            outputs=tuple(
                TensorSpec(name=name, dtype="float32", shape=shape, layout="NPC")
                for name, shape in zip(("logits", "offsets"), shapes, strict=True)
            ),
            toolchain={
                "apache-tvm": str(tvm.__version__),
                "llvm": str(tvm.target.codegen.llvm_version_major()),
                "torch": str(require("torch", extra="torch").__version__),
                "target": target.text,
                "cpu-features": " ".join(target.features),
            },
            notes=(f"target {target.text}", *kernels),
        )
