"""Score one cell in several processes: each takes a range of images, one more joins and scores.

The shards run in child processes here, or on the workers of a Dask cluster. What they found is
joined in the data set's order before anything is counted, so the figures do not depend on how the
images were split. A shard that fails fails its cell and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from harness.records import Measurement
from harness.scoring import OVERLAP, SKIPPED
from harness.tasks import ChildResult, MeasureTask, Part

RunTask = Callable[[MeasureTask, str], ChildResult]
"""Does a task under a name for its files; whatever happens is in the answer."""

SHARD_IMAGES = 400
"""The fewest images that are worth another process, which loads the runtime again."""


def shards_for(cells: int, cores: int, images: int) -> int:
    """Parts of each cell where ``cells`` are to be scored at once and nobody asked for a number."""
    return max(1, min(cores // max(cells, 1), images // SHARD_IMAGES))


def score_in_shards(
    task: MeasureTask, name: str, *, shards: int, jobs: int, run: RunTask, join: RunTask
) -> ChildResult:
    """What became of a cell whose images were split.

    Args:
        task: the whole cell's.
        name: the cell's name.
        jobs: how many shards run at once.
        run: runs a shard; ``detections`` of its task is on this machine when it answers.
        join: runs the task that scores, on this machine.
    """
    started = time.perf_counter_ns()
    tasks = [_shard(task, number, shards) for number in range(shards)]
    names = [f"{name}.s{number}of{shards}" for number in range(shards)]
    try:
        with ThreadPoolExecutor(jobs) as pool:
            results = list(pool.map(run, tasks, names))
        for number, result in enumerate(results, start=1):
            if result.state != "ok":
                said = f"shard {number} of {shards}: {result.error}"
                return msgspec.structs.replace(result, error=said, measurements=())
        parts = tuple(
            Part(detections=str(one.detections), measurements=_counted(result.measurements))
            for one, result in zip(tasks, results, strict=True)
        )
        joined = join(msgspec.structs.replace(task, parts=parts), f"{name}.join")
    finally:
        for one in tasks:
            Path(str(one.detections)).unlink(missing_ok=True)
    first = results[0]
    once = tuple(item for item in first.measurements if item not in _counted(first.measurements))
    return msgspec.structs.replace(
        joined,
        versions=first.versions,
        preprocessing=first.preprocessing,
        emulated=first.emulated,
        board=first.board,
        measurements=(*once, *joined.measurements),
        elapsed_ns=time.perf_counter_ns() - started,
    )


def _shard(task: MeasureTask, number: int, shards: int) -> MeasureTask:
    path = Path(str(task.detections))
    return msgspec.structs.replace(
        task,
        shard=number,
        shards=shards,
        detections=str(path.with_name(f".{path.stem}.{number}of{shards}.npz")),
        reference=None,
    )


def _counted(measurements: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """Those that are added up over shards; the others are the artifact's, the same in each."""
    return tuple(
        item
        for item in measurements
        if item.metric.startswith("time.") or item.metric in (OVERLAP, SKIPPED)
    )
