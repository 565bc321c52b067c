"""TVM's own tuner, MetaSchedule, on pointwise convolutions in the blocked layout.

It is given what our kernel computes, with the same arguments, and a space of schedules: register
tiles, the order of the loops around them, how far the reduction is unrolled. It draws schedules,
`_tvm_time` times them as it times our kernels, and the fastest one takes a kernel's place where it
is faster than our fastest cut. Every trial is kept in MetaSchedule's own database, by target and
workload; the next search draws others.

Its stock builder and runner start processes that import TVM for many seconds each, so the tasks are
driven here, in one process.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from exporters._tvm_after import Add, Clip
from exporters._tvm_conv_tile import Conv
from exporters._tvm_target import CpuTarget
from exporters._tvm_tiles import MOST_PIXELS, PARALLEL_MACS, ceil_div
from exporters._tvm_time import Candidate, Times
from harness.cache import sha256_text
from harness.errors import ExportFailed
from harness.extras import require
from harness.provenance import source_digest

TILE = (1, 1)
"""The cut whose packed weights these schedules read: (output vectors, inputs, lanes)."""

TRIALS = 32
"""Schedules that a search tries of a convolution: more hardly found faster ones."""

AT_ONCE = 16
"""Of them, how many are compiled together."""

ALL = 1 << 30
"""More than the trials of any database."""

CHUNKS = (1, 4, 16, 64)
"""Tiles of pixels that go by while the weights of one group of outputs stay in the cache."""

UNROLLED = 8
"""Steps of the reduction that are written out at most."""

INTRINSICS = "tvm.s_tir.tensor_intrin"
"""Parsing what it holds for GPUs takes half a minute of CPU time, and no CPU schedule uses it."""


def able(conv: Any, lanes: int) -> TypeGuard[Conv]:
    """Whether MetaSchedule is asked: whole vectors of inputs, only clips and residuals after."""
    if not isinstance(conv, Conv):
        return False
    plain = all(isinstance(after, Add | Clip) for after in conv.after)
    return conv.flat and not conv.planar and conv.inputs % lanes == 0 and plain


class Database:
    """MetaSchedule's trials of one target by this file's code, as JSON below ``folder``.

    Raises:
        ExportFailed: the files cannot be read, or written by this TVM.
    """

    def __init__(self, target: CpuTarget, folder: Path) -> None:
        self.target = target
        with _no_intrinsics():
            self.ms = require("tvm.s_tir.meta_schedule", extra="tvm")
        logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
        _check_json()
        self.folder = folder / source_digest(("exporters/_tvm_metaschedule.py",))[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.trials = self.ms.database.JSONDatabase(
                str(self.folder / "workloads.json"), str(self.folder / "trials.json")
            )
        except Exception as error:  # TVM raises several types for lines that are cut off
            raise ExportFailed(
                f"MetaSchedule cannot read its trials in {self.folder}: delete that folder"
            ) from error


class Schedules:
    """The schedules of one convolution that were tried, and the search for more."""

    def __init__(self, conv: Conv, database: Database) -> None:
        self._conv, self._target = conv, database.target
        self._ms, self._database = database.ms, database.trials
        tvm = require("tvm", extra="tvm")
        self._cpu = tvm.target.Target({**dict(self._target.tvm.export()), "num-cores": 1})
        self._module = tvm.IRModule({"main": function(conv, self._target.lanes)})
        self._entry = self._database.commit_workload(self._module)

    def tried(self) -> int:
        """Trials in the database."""
        return len(self._database.get_top_k(self._entry, ALL))

    def left(self) -> int:
        """Trials that a search still makes."""
        return max(0, TRIALS - self.tried())

    def best(self) -> Candidate | None:
        """The fastest schedule, whose kind is a `Scheduled`; None where none was tried."""
        found = self._database.get_top_k(self._entry, 1)
        if not found:
            return None
        scheduled = Scheduled(self._module, found[0].trace, self._conv)
        key = sha256_text([repr(self._conv), str(found[0].as_json())])
        return Candidate(key, scheduled, scheduled.serial)

    def search(self, count: int, times: Times) -> None:
        """Time ``count`` more schedules."""
        drawn = self._draw(count)
        candidates = [
            Candidate("", number, partial(finished, one.sch.mod))
            for number, one in enumerate(drawn)
        ]
        for one, taken in zip(drawn, times.time(candidates), strict=True):
            record = self._ms.database.TuningRecord(
                one.sch.trace, self._entry, [taken], self._cpu, one.args_info
            )
            self._database.commit_tuning_record(record)

    def _draw(self, count: int) -> list[Any]:
        """``count`` of MetaSchedule's candidates; others than in earlier searches."""
        with _no_intrinsics():
            context = self._ms.TuneContext(
                mod=self._module,
                target=self._cpu,
                space_generator=self._ms.space_generator.ScheduleFn(
                    self._schedule, sch_rules=[], postprocs=[], mutator_probs={}
                ),
                search_strategy=self._ms.search_strategy.ReplayFunc(),
                num_threads=1,
                rand_state=self.tried() + 1,
            )
        spaces = context.generate_design_space()
        model = self._ms.cost_model.RandomModel()
        context.pre_tuning(count, count, spaces, self._database, model)
        return list(context.generate_measure_candidates() or ())

    def _schedule(self, sch: Any) -> None:
        """Draw a schedule: a register tile of pixels x output vectors over the whole reduction."""
        registers = self._target.registers
        sums, out = sch.get_sblock("sums"), sch.get_sblock("out")
        for name in ("image", "weight"):
            sch.compute_inline(sch.get_sblock(f"{name}_shaped"))
        sch.reverse_compute_inline(sch.get_sblock("flat"))
        block, pixel, lane = sch.get_loops(out)
        drawn = sch.sample_perfect_tile(block, 2, max_innermost_factor=registers // 2)
        blocks, vector = sch.split(block, drawn)
        fit = (registers - 1) // int(sch.get(drawn[1])) - 1
        most = max(1, min(fit, MOST_PIXELS, self._conv.window.width))
        pixels, tiled = sch.split(pixel, [None, _one_of(sch, range(ceil_div(most, 2), most + 1))])
        chunks, pixels = sch.split(pixels, [None, _one_of(sch, CHUNKS)])
        sch.reorder(chunks, blocks, pixels, vector, tiled, lane)
        sch.annotate(pixels, "pragma_loop_partition_hint", 1)
        sch.compute_at(sums, pixels, preserve_unit_loops=True)
        sch.set_scope(sums, 0, "local")
        *tile, lane, outer, inner = sch.get_loops(sums)[3:]
        steps = sch.sample_perfect_tile(inner, 2, max_innermost_factor=UNROLLED)
        inner, unrolled = sch.split(inner, steps)
        sch.reorder(outer, inner, unrolled, *tile, lane)
        sch.unroll(unrolled)
        _in_registers(sch, tile, lane)
        start = sch.decompose_reduction(sums, outer)
        for part in (start, out):
            *tile, lane = sch.get_loops(part)[3:]
            _in_registers(sch, tile, lane)


class Scheduled:
    """A schedule of a convolution that can take our kernel's place."""

    def __init__(self, module: Any, trace: Any, conv: Conv) -> None:
        self._module, self._trace, self._conv = module, trace, conv

    def write(self, name: str) -> Any:
        """The ``PrimFunc``, which spreads large layers over the threads."""
        if self._conv.macs < PARALLEL_MACS:
            return self.serial(name)
        schedule = self._applied()
        schedule.fuse(*schedule.get_loops(schedule.get_sblock("out"))[:2])
        made = finished(schedule.mod, name)
        return made.with_body(_spread(made.body))

    def serial(self, name: str) -> Any:
        """The same for one thread, to be timed."""
        return finished(self._applied().mod, name)

    def _applied(self) -> Any:
        schedule = require("tvm.s_tir", extra="tvm").Schedule(self._module)
        self._trace.apply_to_schedule(schedule, remove_postproc=False)
        return schedule


def function(conv: Conv, lanes: int) -> Any:
    """What is computed, without a schedule: a ``PrimFunc`` of the arguments of our kernel."""
    te = require("tvm.te", extra="tvm")
    tir = require("tvm.tirx", extra="tvm")
    blocks, pixels = ceil_div(conv.outputs, lanes), conv.window.width
    depth, shape = conv.inputs // lanes, (blocks, pixels, lanes)
    size = blocks * pixels * lanes
    image = te.placeholder((conv.inputs * pixels,), "float32", "image")
    weight = te.placeholder((blocks * conv.inputs * lanes,), "float32", "weight")
    bias = te.placeholder((blocks * lanes,), "float32", "bias")
    adds = [number for number, after in enumerate(conv.after) if isinstance(after, Add)]
    residuals = {n: te.placeholder((size,), "float32", f"residual{n}") for n in adds}
    read: Any = te.compute(
        (depth, pixels, lanes), lambda k, p, i: image[(k * pixels + p) * lanes + i], "image_shaped"
    )
    weights: Any = te.compute(
        (blocks, depth, lanes, lanes),
        lambda b, k, i, lane: weight[((b * depth + k) * lanes + i) * lanes + lane],
        "weight_shaped",
    )
    outer, inner = te.reduce_axis((0, depth), "outer"), te.reduce_axis((0, lanes), "inner")
    sums: Any = te.compute(
        shape,
        lambda b, p, lane: te.sum(
            read[outer, p, inner] * weights[b, outer, inner, lane], axis=[outer, inner]
        ),
        "sums",
    )

    def finish(b: Any, p: Any, lane: Any) -> Any:
        value = sums[b, p, lane] + bias[b * lanes + lane]
        for number, after in enumerate(conv.after):
            if isinstance(after, Add):
                value = value + residuals[number][(b * pixels + p) * lanes + lane]
            elif isinstance(after, Clip):
                if after.low is not None:
                    value = tir.max(value, tir.const(after.low, "float32"))
                if after.high is not None:
                    value = tir.min(value, tir.const(after.high, "float32"))
        return value

    out: Any = te.compute(shape, finish, "out")
    flat = te.compute(
        (size,), lambda i: out[i // (pixels * lanes), i // lanes % pixels, i % lanes], "flat"
    )
    made = te.create_prim_func([image, weight, bias, *residuals.values(), flat])
    return made.with_attr("global_symbol", "main")


def finished(module: Any, name: str) -> Any:
    """The scheduled ``main`` as Relax's passes take a kernel.

    Its temporary buffers are shrunk to register tiles here, a pass that is left out later, where
    it needs minutes for kernels that have no use for it.
    """
    tvm = require("tvm", extra="tvm")
    passes = require("tvm.s_tir", extra="tvm").transform
    lowered = tvm.ir.transform.Sequential(
        [
            passes.LowerInitBlock(),
            passes.PlanAndUpdateBufferAllocationLocation(),
            passes.ConvertBlocksToOpaque(),
            passes.CompactBufferAllocation(),
        ]
    )(module)["main"]
    return lowered.with_attr("global_symbol", name).with_attr("op_pattern", 8)


def _spread(body: Any) -> Any:
    """``body`` with its outermost loop over the threads.

    MetaSchedule's primitive for it refuses a reduction that was taken apart, and what is timed may
    not be spread: the time of this thread is read.
    """
    tir, structured = require("tvm.tirx", extra="tvm"), require("tvm.s_tir", extra="tvm")
    loop = body.block.body
    spread = tir.For(loop.loop_var, loop.min, loop.extent, tir.ForKind.PARALLEL, loop.body)
    root = structured.SBlock([], [], [], "root", spread)
    return structured.SBlockRealize([], True, root)


def _one_of(sch: Any, values: Sequence[int]) -> Any:
    return sch.sample_categorical(list(values), [1 / len(values)] * len(values))


def _in_registers(sch: Any, tile: Sequence[Any], lane: Any) -> None:
    """Write a register tile out, vector by vector."""
    sch.vectorize(lane)
    for loop in tile:
        sch.unroll(loop)


def _check_json() -> None:
    """Raise ExportFailed where TVM's JSON writer would stop the process."""
    version = str(require("tvm_ffi", extra="tvm").__version__)
    if tuple(map(int, version.split(".")[:3])) >= (0, 1, 15):
        raise ExportFailed(
            f"tuning writes TVM's expressions as JSON, and apache-tvm-ffi {version} crashes at it:"
            " install  'apache-tvm-ffi>=0.1.14.post0,<0.1.15'"
        )


@contextmanager
def _no_intrinsics() -> Iterator[None]:
    """Keep MetaSchedule from importing `INTRINSICS`."""
    if INTRINSICS in sys.modules:
        yield
        return
    sys.modules[INTRINSICS] = ModuleType(INTRINSICS)
    try:
        yield
    finally:
        del sys.modules[INTRINSICS]
