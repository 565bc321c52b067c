"""Dense float32 compiled by Apache TVM (https://tvm.apache.org, Apache-2.0) to a shared library.

Path: ``torch.export`` → Relax → LLVM → ``model.so``, loaded with ``relax.VirtualMachine``.
Tensors: image NCHW float32 → logits and offsets, (1, priors, classes) and (1, priors, 4) float32.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporters import (
    _tvm_board,
    _tvm_export,
    _tvm_import,
    _tvm_lower,
    _tvm_target,
    _tvm_tune,
)
from exporters._tvm_tunable import Tunables
from harness.errors import BadConfig
from harness.interfaces import EXPORTERS, Exported, ExportJob
from harness.layer_records import LayerChoice
from harness.records import ModelSpec, Scalar


@EXPORTERS.register
class TvmDense(_tvm_export.TvmExporter):
    """Hand-written dense kernels on blocked activations."""

    name = "tvm_dense"

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """As others, but it times nothing unless it is tuned. Raises BadConfig."""
        if options["board"] != _tvm_board.NONE and options["tune"] == _tvm_tune.OFF:
            raise BadConfig(
                f"board={options['board']} is where kernels are timed, and tvm_dense times none"
                " unless it is tuned: give tune=15min too, or leave board out"
            )
        return super().unsupported(spec, options)

    def export(self, job: ExportJob) -> Exported:
        """Compile. Raises ExportFailed."""
        target = _tvm_target.resolve(str(job.options["target"]))
        module = _tvm_import.to_relax(job)
        shapes = _tvm_export.output_shapes(module)
        tunables = Tunables(target.lanes, target.registers)
        lowered = _tvm_lower.lower(module, target, tunables)
        notes = lowered.notes
        layers: tuple[LayerChoice, ...] = ()
        times = _tvm_export.times(job, target)
        budget = _tvm_tune.budget_for(str(job.options["tune"]), times)
        if budget is not None:
            workloads = _tvm_tune.dense_workloads(tunables, times)
            _tvm_tune.search(list(workloads.values()), times, budget)
            best = _tvm_tune.best_cuts(tunables, workloads, times)
            cuts = {key: cut for key, (cut, _) in best.items()}
            tunables = Tunables(target.lanes, target.registers, cuts)
            lowered = _tvm_lower.lower(module, target, tunables)
            layers = tuple(layer for _, layer in best.values())
            notes = (*lowered.notes, _tvm_tune.said(layers, len(workloads)))
        return _tvm_export.build(job, lowered, shapes, target, notes, layers)
