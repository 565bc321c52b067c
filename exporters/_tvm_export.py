"""What the TVM exporters share: options, what must be there, and the answer to the harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from exporters import _tvm_board, _tvm_build, _tvm_target, _tvm_time, _tvm_tune
from exporters._tvm_shown import Lowered
from harness.extras import require
from harness.interfaces import Exported, Exporter, ExportJob
from harness.layer_records import LayerChoice
from harness.records import ModelSpec, Options, Scalar, TensorSpec

LIBRARY = "model.so"

TRIAL_S = 4.0
"""That a candidate of tuning takes at most, in the mean."""


class TvmExporter(Exporter):
    """TVM on a CPU, to one shared library.

    Options:
        target: ``native``; ``x86-64-v2``, ``-v3``, ``-v4``; ``aarch64``, ``rpi3``, ``rpi4``,
            ``rpi5``, ``imx8mp``, ``imx93``, ``jetson-nano``; an LLVM CPU name of this machine's
            architecture; or a target such as ``llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72``.
        board: where kernels are timed if not here: ``HOST:PORT``, or ``KEY@HOST:PORT``.
        tune: ``no``; a budget such as ``15min`` or ``500trials``; ``cached``, see `_tvm_tune`.
    """

    format = "tvm"
    precision = "float32"
    modules = ("tvm", "torch", "elftools")
    extra = "tvm"
    options: ClassVar[Options] = {
        "target": "native",
        "tune": _tvm_tune.OFF,
        "board": _tvm_board.NONE,
    }

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """A linker must be there. Raises BadConfig for a budget or a board that is none."""
        _tvm_tune.parse(str(options["tune"]))
        _tvm_board.parse(str(options["board"]))
        target = str(options["target"])
        if _tvm_target.linker(target) is None and _tvm_target.plausible(target):
            return (
                f"{self.name} needs a compiler to link {LIBRARY} for {target} and"
                f" {_tvm_target.no_linker(target)}"
            )
        return None

    def extra_s(self, options: Mapping[str, Scalar]) -> float:
        """The budget for tuning, in seconds; of trials, what they may take."""
        budget = _tvm_tune.parse(str(options["tune"]))
        if budget is None:
            return 0.0
        return min(budget.seconds, budget.trials * TRIAL_S)


def build(
    job: ExportJob,
    lowered: Lowered,
    shapes: Sequence[tuple[int, ...]],
    target: _tvm_target.CpuTarget,
    notes: Sequence[str],
    layers: tuple[LayerChoice, ...] = (),
) -> Exported:
    """Compile a lowered module and describe it. Raises ExportFailed."""
    tvm = require("tvm", extra="tvm")
    llvm = require("tvm.target.codegen", extra="tvm")
    found = _tvm_build.build(lowered.module, target, job.folder / LIBRARY)
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
            "llvm": str(llvm.llvm_version_major()),
            "torch": str(require("torch", extra="torch").__version__),
            "target": target.text,
            "cpu-features": " ".join(target.features),
            **{f"library-{key}": value for key, value in found.items()},
        },
        notes=(f"target {target.text}", *notes),
        layers=layers,
        layer_outputs=lowered.outputs,
    )


def times(job: ExportJob, target: _tvm_target.CpuTarget) -> _tvm_time.Times:
    """Where kernels are timed: on the board that was asked for, else on this machine."""
    where = _tvm_board.parse(str(job.options["board"]))
    timer = _tvm_board.OnBoard(where) if where else None
    return _tvm_time.Times(target, timer, str(where or ""))


def output_shapes(module: Any) -> list[tuple[int, ...]]:
    """Of an imported network's results."""
    fields = module["main"].ret_ty.fields
    return [tuple(int(extent) for extent in field.shape.values) for field in fields]
