"""Measure one cell, or one round of it, in a child process of its own.

Every cell's outputs are first compared with the float network's golden answers: what does not
compute the same function is not measured. Preparing pictures, decoding and NMS are the harness's
own, the same for every runtime.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import artifacts, outputs, parity
from harness.datasets import open_dataset
from harness.errors import ParityFailed, Unsupported
from harness.evaluation import score
from harness.images import Preprocessor
from harness.interfaces import (
    RUNNERS,
    Dataset,
    Detections,
    Outputs,
    Runner,
    RunOptions,
    Session,
)
from harness.memory import Baseline, baseline, peak_above
from harness.records import Artifact, Measurement
from harness.tasks import ChildResult, MeasureTask
from harness.threads import threads_used
from harness.timing import TIERS, Tier, Timing, time_calls, time_stages

RING = 8
"""Prepared inputs that take turns while timing: no runtime sees the same one twice in a row."""
PIPELINE_S = 1.0
"""Least time of the pipeline's stages; the tight loop has the tier's own."""
KEPT = 4
"""Timed calls whose outputs are compared with those of an untimed call on the same input."""


TIMED_SQNR_DB = 60.0


class Opened(NamedTuple):
    """An artifact in a runtime, with what is needed to feed and decode it."""

    artifact: Artifact
    session: Session
    prepare: Preprocessor
    priors: NDArray[np.float32]

    @property
    def kind(self) -> outputs.Kind:
        return outputs.KINDS[self.artifact.output_kind]

    def infer(self, image: NDArray[np.uint8]) -> Outputs:
        return self.session.run(self.prepare(image))

    def detect(self, answer: Outputs, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        return self.kind.detections(self.artifact, self.priors, answer, sizes)


def measure(task: MeasureTask) -> ChildResult:
    """Do what the task says.

    Raises:
        ParityFailed: the artifact does not compute what the float network does.
        ArtifactDamaged: it is not what its manifest says, or the runtime cannot load it.
        Unsupported: the runner cannot run it so.
        MissingExtra: the runtime is not installed.
    """
    folder = Path(task.folder)
    artifact = artifacts.load(folder)
    batch = artifact.inputs[0].shape[0]
    if batch != task.cell.batch:
        raise Unsupported(
            f"{artifact.id} takes batches of {batch} images, cells are measured with"
            f" {task.cell.batch}: export it with batch={task.cell.batch}"
        )
    runner = RUNNERS.get(task.cell.runner)()
    options = RunOptions(threads=task.cell.threads, target=task.cell.target)
    before = baseline()
    started = time.perf_counter_ns()
    runner.open(artifact, folder, options).close()
    cold_ns = time.perf_counter_ns() - started
    started = time.perf_counter_ns()
    with runner.open(artifact, folder, options) as session:
        loads = (
            _single("latency.load", time.perf_counter_ns() - started, "ns"),
            _single("latency.load_cold", cold_ns, "ns"),
        )
        opened = Opened(
            artifact,
            session,
            Preprocessor(artifact.image, artifact.inputs[0]),
            artifacts.priors(folder),
        )
        found = _measured(task, opened, folder, runner)
        versions = {name: str(version) for name, version in session.versions.items()}
    timed = task.cell.measure == "latency"
    return ChildResult(
        state="ok",
        artifact_id=artifact.id,
        versions=versions,
        preprocessing=opened.prepare.fingerprint,
        measurements=(*found, *loads, *_memory(before)) if timed else tuple(found),
    )


def _measured(task: MeasureTask, opened: Opened, folder: Path, runner: Runner) -> list[Measurement]:
    if task.cell.measure == "latency":
        data = open_dataset(task.cell.dataset, limit=RING)
        images = [data.image(index) for index in range(len(data))]
        first = time.perf_counter_ns()
        opened.infer(images[0])
        first_ns = time.perf_counter_ns() - first
        checked = [] if runner.measures_harness_only else _parity(opened, folder)
        timed = _latency(task, opened, images)
        return [*checked, _single("latency.first", first_ns, "ns"), *timed]
    checked = _parity(opened, folder)
    if task.cell.measure == "parity":
        return checked
    return [*checked, *_accuracy(task, opened)]


def _parity(opened: Opened, folder: Path) -> list[Measurement]:
    """Compare with the golden answers. Raises ParityFailed."""
    golden = artifacts.golden(folder)
    answers = [opened.infer(image) for image in golden.images]
    got = tuple(np.concatenate(arrays) for arrays in zip(*answers, strict=True))
    return list(opened.kind.compare(opened.artifact, opened.priors, golden.outputs, got))


def _latency(
    task: MeasureTask, opened: Opened, images: Sequence[NDArray[np.uint8]]
) -> list[Measurement]:
    """The tight loop over prepared inputs, then the pipeline from decoded picture to detections."""
    tier = TIERS[task.tier].share(task.rounds)
    ring = [opened.prepare(image) for image in images]
    session = opened.session
    used = threads_used(lambda: session.run(ring[0]))
    tight = time_calls(
        lambda slot: session.run(ring[slot]),
        tier,
        inputs=len(ring),
        keep=KEPT,
        seed=task.seed + task.round,
    )
    for kept in tight.kept:
        _check_timed(opened.kind.names, kept.output, session.run(ring[kept.slot]))
    sizes = [image.shape[:2] for image in images]
    stages = time_stages(
        {
            "preprocess": lambda slot: (slot, opened.prepare(images[slot])),
            "inference_in_pipeline": lambda given: (given[0], session.run(given[1])),
            "postprocess": lambda given: opened.detect(given[1], [sizes[given[0]]]),
        },
        _pipeline_tier(tier, task.rounds),
        inputs=len(images),
    )
    return [
        *_steady("inference", tight, warmup=True),
        *(item for name, timing in stages.items() for item in _steady(name, timing)),
        *([_single("threads.used", used, "threads")] if used is not None else []),
    ]


def _pipeline_tier(tier: Tier, rounds: int) -> Tier:
    return msgspec.structs.replace(tier, seconds=min(tier.seconds, PIPELINE_S / rounds))


def _steady(stage: str, timing: Timing, *, warmup: bool = False) -> list[Measurement]:
    steady, _, warm = timing.measurements(stage)
    return [steady, warm] if warmup else [steady]


def _check_timed(names: Sequence[str], timed: Outputs, again: Outputs) -> None:
    """What a timed call answered must be what an untimed one answers (MLPerf's TEST01).

    Raises:
        ParityFailed: it differs by more than float rounding in another order.
    """
    for head, error in parity.compare_heads(_real(again), _real(timed), names).items():
        if error.sqnr_db < TIMED_SQNR_DB:
            raise ParityFailed(
                f"{head} of a timed call have an SQNR of {error.sqnr_db:.1f} dB against an untimed"
                f" call on the same input (at least {TIMED_SQNR_DB:g} dB): the runtime computes"
                " something else under load"
            )


def _real(answer: Outputs) -> Outputs:
    return tuple(values.astype(np.float64) for values in answer)


def _accuracy(task: MeasureTask, opened: Opened) -> list[Measurement]:
    """Score the data set, with the time that each part took."""
    data: Dataset = open_dataset(task.cell.dataset, limit=task.images)
    spent = dict.fromkeys(("image", "preprocess", "inference", "postprocess"), 0)
    detections, sizes = [], []
    clock = time.perf_counter_ns
    for index in range(len(data)):
        begun = clock()
        image = data.image(index)
        read = clock()
        prepared = opened.prepare(image)
        ready = clock()
        answer = opened.session.run(prepared)
        answered = clock()
        size = (image.shape[0], image.shape[1])
        detections += opened.detect(answer, [size])
        done = clock()
        sizes.append(size)
        for stage, elapsed in zip(
            spent, (read - begun, ready - read, answered - ready, done - answered), strict=True
        ):
            spent[stage] += elapsed
    begun = clock()
    scores = score(task, opened.artifact, data, detections, sizes)
    return [*scores, *_spent({**spent, "scoring": clock() - begun}, len(data))]


def _memory(before: Baseline) -> list[Measurement]:
    """Peak resident set, and what was resident before the runtime came; empty if unknown."""
    above = peak_above(before)
    if above is None:
        return []
    return [
        _single("memory.peak_bytes", before.resident_bytes + above, "B"),
        _single("memory.baseline_bytes", before.resident_bytes, "B"),
    ]


def _spent(stages: Mapping[str, int], images: int) -> list[Measurement]:
    return [
        Measurement(
            metric=f"time.{stage}", value=float(elapsed), unit="ns", conditions={"images": images}
        )
        for stage, elapsed in stages.items()
    ]


def _single(metric: str, value: float, unit: str) -> Measurement:
    return Measurement(metric=metric, value=float(value), unit=unit)
