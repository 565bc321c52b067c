"""Measure one cell, or one round of it, in a child process of its own.

Every cell's outputs are first compared with the float network's golden answers: what does not
compute the same function is not measured. Preparing pictures, decoding and NMS are the harness's
own, the same for every runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import artifacts, latency, profiling, sustained
from harness.accuracy import stopping
from harness.datasets import open_dataset
from harness.datasets.golden import GoldenImages
from harness.detections import load, save
from harness.early import Ended, score_until
from harness.emulation import emulator
from harness.errors import ParityFailed, Unsupported
from harness.evaluation import class_map, score
from harness.images import Preprocessor
from harness.interfaces import RUNNERS, Dataset, Detections, Runner, RunOptions
from harness.memory import Baseline, baseline, peak_above
from harness.opened import Opened
from harness.policies import decoded_by
from harness.records import Artifact, Measure, Measurement
from harness.scoring import Pass, merge, run_over, shard_range
from harness.tasks import ChildResult, MeasureTask

TIMED: frozenset[Measure] = frozenset({"latency", "profile", "sustain"})
Prepared = tuple[NDArray[Any], tuple[int, int]]
"""The network's input, and the (height, width) of the picture that it was made of."""


def measure(task: MeasureTask) -> ChildResult:
    """Do what the task says.

    Raises:
        ParityFailed: the artifact does not compute what the float network does.
        ArtifactDamaged: it is not what its manifest says, or the runtime cannot load it.
        Unsupported: the runner cannot run it so.
        MissingExtra: the runtime is not installed.
    """
    folder = Path(task.folder)
    artifact = decoded_by(artifacts.load(folder), task.decoding)
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
        board = session.board
        emulated = emulator() if board is None else board.get("emulated")
        if emulated and task.cell.measure in TIMED:
            raise Unsupported(
                f"the processor is emulated by {emulated}, its times are none of a real one:"
                " measure accuracy and parity there, and time on the device itself"
            )
        found = _measured(task, opened, folder, runner)
        if emulated:
            found = [item for item in found if not item.metric.startswith("time.")]
        versions = {name: str(version) for name, version in session.versions.items()}
    timed = task.cell.measure == "latency"
    return ChildResult(
        state="ok",
        artifact_id=artifact.id,
        versions=versions,
        preprocessing=opened.prepare.fingerprint,
        measurements=(*found, *loads, *_memory(before)) if timed else tuple(found),
        emulated=emulated,
        board=None if board is None else dict(board),
    )


def _measured(task: MeasureTask, opened: Opened, folder: Path, runner: Runner) -> list[Measurement]:
    if task.cell.measure == "latency":
        data = _timed_on(task, folder)
        images = [data.image(index) for index in range(len(data))]
        first = time.perf_counter_ns()
        opened.infer(images[:1])
        first_ns = time.perf_counter_ns() - first
        checked = [] if runner.measures_harness_only else _parity(task, opened, folder)
        timed = latency.time_cell(task, opened, data, images)
        return [*checked, _single("latency.first", first_ns, "ns"), *timed]
    checked = _parity(task, opened, folder)
    if task.cell.measure == "parity":
        return checked
    if task.cell.measure == "sustain":
        return [*checked, *_sustained(task, opened, folder)]
    if task.cell.measure == "profile":
        return [*checked, *_profile(task, opened, folder, runner)]
    return [*checked, *_accuracy(task, opened)]


def _timed_on(task: MeasureTask, folder: Path) -> Dataset:
    """What is timed: the first images of the data set, or the artifact's own golden ones."""
    if task.cell.dataset == artifacts.GOLDEN_DATA:
        golden = artifacts.golden(folder)
        if golden is None:
            raise Unsupported(
                f"{folder} holds no golden images to be timed on ({artifacts.NO_REFERENCE}):"
                " give a data set"
            )
        return GoldenImages(golden.images[: latency.RING])
    return open_dataset(task.cell.dataset, limit=latency.RING)


def _ring(task: MeasureTask, opened: Opened, folder: Path) -> list[NDArray[Any]]:
    """Prepared inputs that take turns."""
    data = _timed_on(task, folder)
    return [opened.feed([data.image(index)]) for index in range(len(data))]


def _sustained(task: MeasureTask, opened: Opened, folder: Path) -> list[Measurement]:
    ring = _ring(task, opened, folder)
    latency.check_cores(task)
    run = opened.session.run
    found = sustained.run(lambda slot: run(ring[slot]), task.sustain_s, inputs=len(ring))
    return found.measurements({"seconds": task.sustain_s})


def _profile(task: MeasureTask, opened: Opened, folder: Path, runner: Runner) -> list[Measurement]:
    """Time by operator, from a run of its own: profiling makes every call slower."""
    options = RunOptions(threads=task.cell.threads, target=task.cell.target)
    images = _ring(task, opened, folder)
    return profiling.measurements(runner.profile(opened.artifact, folder, options, images))


def _parity(task: MeasureTask, opened: Opened, folder: Path) -> list[Measurement]:
    """Compare with the golden answers, where there are any.

    Raises:
        ParityFailed: too far from them, and the task is strict; says where that was, if not on
            this machine.
    """
    golden = artifacts.golden(folder)
    if golden is None:  # a plan holds no parity cell of such an artifact
        return []
    got = opened.infer(list(golden.images))
    try:
        return list(opened.kind.compare(opened.artifact, opened.priors, golden.outputs, got))
    except ParityFailed as failed:
        if failed.measured and not task.strict:
            return list(failed.measured)
        if (board := opened.session.board) is None:
            raise
        raise ParityFailed(
            f"{failed}. {board['id']} answered this: if the same artifact passes on this machine,"
            " look at that board, its TVM and the CPU that it was exported for"
        ) from failed


def _accuracy(task: MeasureTask, opened: Opened) -> list[Measurement]:
    """Score the data set, with the time that each part took; a shard only keeps what it found."""
    data: Dataset = open_dataset(task.cell.dataset, limit=task.images, skip_bad=task.skip_bad)
    artifact = opened.artifact
    where = {"dataset": data.name, "split": data.split}

    def run(indices: Sequence[int], first: bool) -> Pass:
        dropped = data.dropped if first else ()
        return pass_over(opened, data, indices, skip_bad=task.skip_bad, dropped=dropped)

    parent = load(Path(task.reference)) if task.reference else None
    if task.accuracy.until and data.labelled and parent is not None:
        question, seed = stopping.parse(task.accuracy.until), task.accuracy.seed
        ended = score_until(question, len(data), run, parent, len(artifact.labels), seed)
        return _scored(task, artifact, where, ended.seen, ended)
    seen = run(shard_range(len(data), task.shard or 0, task.shards), not task.shard)
    if task.shard is not None:
        save(Path(str(task.detections)), seen.found)
        return list(seen.measurements)
    return _scored(task, artifact, where, seen)


def pass_over(
    opened: Opened,
    data: Dataset,
    indices: Sequence[int],
    *,
    skip_bad: bool = False,
    dropped: Sequence[str] = (),
) -> Pass:
    """What an opened artifact finds in the images ``indices`` of ``data``, see `run_over`.

    Raises:
        BadConfig: the data set has a class that the model does not know.
        BadImage, BadAnnotation: one of the images, where bad ones are not left out.
    """

    def prepare(image: NDArray[np.uint8]) -> Prepared:
        return opened.feed([image]), (image.shape[0], image.shape[1])

    def model(prepared: Prepared, lap: Callable[[str], None]) -> Detections:
        given, size = prepared
        answer = opened.session.run(given)
        lap("inference")
        (found,) = opened.detect(answer, [size])
        lap("postprocess")
        return found

    labels = opened.artifact.labels
    return run_over(
        data,
        indices,
        model,
        prepare=prepare,
        to_model=class_map(data.labels, labels, f"{data.name}:{data.split}")
        if data.labelled
        else None,
        calibration=opened.artifact.calibration,
        skip_bad=skip_bad,
        dropped=dropped,
    )


def merge_parts(task: MeasureTask) -> ChildResult:
    """Join what the shards of a cell found, and score it; no runtime is needed.

    Raises:
        ArtifactDamaged: the artifact is not what its manifest says.
        ResultsError: what a shard found cannot be read.
    """
    artifact = decoded_by(artifacts.load(Path(task.folder)), task.decoding)
    data = open_dataset(task.cell.dataset, limit=task.images, skip_bad=task.skip_bad)
    parts = [Pass(load(Path(part.detections)), part.measurements) for part in task.parts]
    where = {"dataset": data.name, "split": data.split}
    found = _scored(task, artifact, where, merge(parts))
    return ChildResult(state="ok", artifact_id=artifact.id, measurements=tuple(found))


def _scored(
    task: MeasureTask,
    artifact: Artifact,
    where: Mapping[str, str],
    seen: Pass,
    ended: Ended | None = None,
) -> list[Measurement]:
    begun = time.perf_counter_ns()
    scores = score(task, artifact, where, seen.found, ended)
    scoring = Measurement(
        metric="time.scoring",
        value=float(time.perf_counter_ns() - begun),
        unit="ns",
        conditions={"images": len(seen.found.names)},
    )
    return [*scores, *seen.measurements, scoring]


def _memory(before: Baseline) -> list[Measurement]:
    """Peak resident set, and what was resident before the runtime came; empty if unknown."""
    above = peak_above(before)
    if above is None:
        return []
    return [
        _single("memory.peak_bytes", before.resident_bytes + above, "B"),
        _single("memory.baseline_bytes", before.resident_bytes, "B"),
    ]


def _single(metric: str, value: float, unit: str) -> Measurement:
    return Measurement(metric=metric, value=float(value), unit=unit)
