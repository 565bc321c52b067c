"""TVM's own search, MetaSchedule, on pointwise convolutions in the blocked layout.

It gets what our kernel computes, with the same arguments, and its best schedule takes that kernel's
place where it is faster. Building and running happen in this process: the stock builder and runner
start workers that each need many seconds to import TVM, and hung on small machines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters import _tvm_time
from exporters._tvm_after import Add, Clip
from exporters._tvm_conv_tile import Conv
from exporters._tvm_target import CpuTarget
from exporters._tvm_tiles import ceil_div
from harness.extras import require

AT_ONCE = 16
"""Trials between two updates of the cost model."""


def able(conv: Conv, lanes: int) -> bool:
    """Whether MetaSchedule is asked: whole vectors of inputs, nothing but clips and sums after."""
    plain = all(isinstance(after, Add | Clip) for after in conv.after)
    return conv.flat and not conv.planar and conv.inputs % lanes == 0 and plain


def function(conv: Conv, lanes: int) -> Any:
    """The unscheduled ``PrimFunc``: image, weight, bias, residuals, out, as our kernel's.

    Weights are packed as for register tiles of one vector: (output vectors, inputs, lanes).
    """
    te = require("tvm.te", extra="tvm")
    tir = require("tvm.tirx", extra="tvm")
    blocks, pixels = ceil_div(conv.outputs, lanes), conv.window.width
    image = te.placeholder((conv.inputs // lanes, pixels, lanes), "float32", "image")
    weight = te.placeholder((blocks, conv.inputs // lanes, lanes, lanes), "float32", "weight")
    bias = te.placeholder((blocks, lanes), "float32", "bias")
    outer = te.reduce_axis((0, conv.inputs // lanes), "outer")
    inner = te.reduce_axis((0, lanes), "inner")
    shape = (blocks, pixels, lanes)
    value: Any = te.compute(
        shape,
        lambda b, p, lane: te.sum(
            image[outer, p, inner] * weight[b, outer, inner, lane], axis=[outer, inner]
        ),
        "sums",
    )
    residuals = [
        te.placeholder(shape, "float32", f"residual{number}")
        for number, after in enumerate(conv.after)
        if isinstance(after, Add)
    ]

    def finish(b: Any, p: Any, lane: Any) -> Any:
        found, given = value[b, p, lane] + bias[b, lane], iter(residuals)
        for after in conv.after:
            if isinstance(after, Add):
                found = found + next(given)[b, p, lane]
            elif isinstance(after, Clip):
                if after.low is not None:
                    found = tir.max(found, tir.const(after.low, "float32"))
                if after.high is not None:
                    found = tir.min(found, tir.const(after.high, "float32"))
        return found

    out = te.compute(shape, finish, "out")
    return te.create_prim_func([image, weight, bias, *residuals, out])


def search(conv: Conv, target: CpuTarget, trials: int, folder: Path) -> tuple[Any, float] | None:
    """The best ``PrimFunc`` that ``trials`` found, with its seconds; None where none ran.

    ``folder`` holds the database, which is read first and grows.
    """
    tvm = require("tvm", extra="tvm")
    ms = require("tvm.s_tir.meta_schedule", extra="tvm")
    logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
    primitive = function(conv, target.lanes)
    module = tvm.IRModule({"main": primitive.with_attr("global_symbol", "main")})
    cpu = tvm.target.Target({**dict(target.tvm.export()), "num-cores": 1})
    builder, runner = _in_process(target)
    database = ms.tir_integration.tune_tir(
        module,
        cpu,
        str(folder),
        max_trials_global=trials,
        num_trials_per_iter=min(AT_ONCE, trials),
        builder=builder,
        runner=runner,
        cost_model="random",
        num_tuning_cores=1,
        seed=1,
    )
    schedule = ms.tir_integration.compile_tir(database, module, cpu)
    if schedule is None:
        return None
    best = schedule.mod["main"]
    seconds = _tvm_time.here(
        tvm.IRModule({"main": best}), [("main", _tvm_time.random_arguments(best))], target
    )
    return best, seconds[0]


def _in_process(target: CpuTarget) -> tuple[Any, Any]:
    """A builder and a runner for MetaSchedule that start no process."""
    ms = require("tvm.s_tir.meta_schedule", extra="tvm")
    derived = require("tvm.ir.utils", extra="tvm").derived_object
    built: dict[str, Callable[[], list[float]]] = {}

    @derived
    class Builder(ms.builder.PyBuilder):  # type: ignore[misc, name-defined]  # TVM has no types
        def build(self, inputs: Any) -> Any:
            found = []
            for number, given in enumerate(inputs):
                key = f"{len(built)}-{number}"
                built[key] = lambda mod=given.mod: _tvm_time.here(
                    mod, [("main", _tvm_time.random_arguments(mod["main"]))], target
                )
                found.append(ms.builder.BuilderResult(key, None))
            return found

    @derived
    class Done(ms.runner.PyRunnerFuture):  # type: ignore[misc, name-defined]  # TVM has no types
        def __init__(self, seconds: list[float] | None, error: str | None) -> None:
            super().__init__()
            self.seconds, self.error = seconds, error

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return ms.runner.RunnerResult(self.seconds, self.error)

    @derived
    class Runner(ms.runner.PyRunner):  # type: ignore[misc, name-defined]  # TVM has no types
        def run(self, inputs: Any) -> Any:
            found = []
            for given in inputs:
                try:
                    found.append(Done(built.pop(given.artifact_path)(), None))
                except Exception as error:  # a schedule may be one that TVM cannot build
                    found.append(Done(None, str(error)[:500]))
            return found

    return Builder(), Runner()
