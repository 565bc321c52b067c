"""Float32 by Apache TVM (https://tvm.apache.org, Apache-2.0) that skips weights which are zero.

For networks with pruned 1x1 convolutions (``--recipe prune:0.9``): their zeros are neither stored
nor multiplied, single ones, or blocks of outputs that are zero together, which run faster. Each
layer is timed in a dense and in sparse forms and the fastest is taken; the manifest lists them all.
Tensors: image NCHW float32 → logits and offsets, (1, priors, classes) and (1, priors, 4) float32.
"""

from __future__ import annotations

from exporters import (
    _tvm_choose,
    _tvm_export,
    _tvm_import,
    _tvm_planes_lower,
    _tvm_target,
    _tvm_tune,
)
from harness.interfaces import EXPORTERS, Exported, ExportJob


@EXPORTERS.register
class TvmSparse(_tvm_export.TvmExporter):
    """Hand-written kernels on padded planes, sparse where that is faster."""

    name = "tvm_sparse"
    typical_export_s = 60.0
    on_request = True

    def export(self, job: ExportJob) -> Exported:
        """Choose a form for each layer, then compile. Raises ExportFailed."""
        target = _tvm_target.resolve(str(job.options["target"]))
        module = _tvm_import.to_relax(job)
        shapes = _tvm_export.output_shapes(module)
        times = _tvm_export.times(job, target)
        budget = _tvm_tune.budget_for(str(job.options["tune"]), times)
        pointwise = _tvm_planes_lower.layers(module, target)
        chosen = _tvm_choose.choose(pointwise, times, budget)
        forms = {number: choice.form for number, choice in chosen.items()}
        lowered = _tvm_planes_lower.lower(module, target, forms)
        layers = tuple(choice.record for choice in chosen.values())
        dense = sum(not choice.form.sparse for choice in chosen.values())
        count = f"{len(layers) - dense} of {len(layers)} pointwise convolutions are sparse"
        notes = (*lowered.notes, count, *([_tvm_tune.said(layers, len(layers))] if budget else []))
        return _tvm_export.build(job, lowered, shapes, target, notes, layers)
