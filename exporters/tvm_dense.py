"""Dense float32 compiled by Apache TVM (https://tvm.apache.org, Apache-2.0) to a shared library.

Path: ``torch.export`` → Relax → LLVM → ``model.so``, loaded with ``relax.VirtualMachine``.
Tensors: image NCHW float32 → logits and offsets, (1, priors, classes) and (1, priors, 4) float32.
"""

from __future__ import annotations

from exporters import _tvm_export, _tvm_import, _tvm_lower, _tvm_target
from harness.interfaces import EXPORTERS, Exported, ExportJob


@EXPORTERS.register
class TvmDense(_tvm_export.TvmExporter):
    """Hand-written dense kernels on blocked activations, untuned."""

    name = "tvm_dense"

    def export(self, job: ExportJob) -> Exported:
        """Compile. Raises ExportFailed."""
        target = _tvm_target.resolve(str(job.options["target"]))
        module = _tvm_import.to_relax(job)
        shapes = _tvm_export.output_shapes(module)
        module, kernels = _tvm_lower.lower(module, target)
        return _tvm_export.build(job, module, shapes, target, kernels)
