"""Made-up runs as folders on disk, for what reads results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.cache import write_atomic
from harness.detections import Found, save
from harness.interfaces import Detections, Truth
from harness.records import RunRecord
from harness.report import RunData
from harness.results import Run, RunFolder
from tests.report_runs import MB2, made_up_run


def write_run(
    base: Path,
    *,
    name: str = "default",
    machine: str = "bench-a",
    revision: str | None = None,
    change: Callable[[RunRecord], RunRecord] = lambda record: record,
    **options: Any,
) -> Path:
    """Write `made_up_run` below ``base`` as a run would; answers the run's folder."""
    data = made_up_run(machine=machine, **options)
    records = [change(record) for record in data.records]
    if revision:
        records = [msgspec.structs.replace(r, git_revision=revision) for r in records]
    return write_data(base, data, records, name=name, machine=machine, revision=revision)


def write_data(
    base: Path,
    data: RunData,
    records: list[RunRecord],
    *,
    name: str,
    machine: str,
    revision: str | None = None,
) -> Path:
    """Write a run's plan, records and artifacts."""
    folder = RunFolder(base, machine, name)
    facts = {**data.run, "name": name, "git_revision": revision or data.run["git_revision"]}
    folder.write_run(msgspec.convert(facts, Run))
    for record in records:
        folder.write_record(record)
    for artifact in data.artifacts.values():
        folder.write_artifact(artifact)
    write_atomic(folder.machine_folder / "machine.json", msgspec.json.encode(data.machine))
    return folder.path


def write_boxes(folder: Path, misses: frozenset[int]) -> Path:
    """Detections with truth for the run's onnx_int8 accuracy cell; ``misses`` find nothing."""
    box = np.array([[2, 2, 20, 20]], np.float32)
    one = np.ones(1, np.int64)
    truth = Truth(box, one, np.zeros(1, bool), np.zeros(1, bool), np.array([324.0]))
    hit = Detections(box, one, np.array([0.9], np.float32))
    nothing = Detections(box[:0], one[:0], np.zeros(0, np.float32))
    count = 40
    found = Found(
        names=[str(n) for n in range(count)],
        detections=[nothing if n in misses else hit for n in range(count)],
        sizes=[(32, 32)] * count,
        digests=[str(n) for n in range(count)],
        truths=[truth] * count,
    )
    run = RunFolder(folder.parent.parent, folder.parent.name, folder.name)
    path = run.detections_path(f"{MB2}-onnx_int8-accuracy-t1")
    save(path, found)
    return path
