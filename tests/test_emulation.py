"""An emulated processor: noticed, named in records, and never timed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.harness_overhead import empty_artifact
from harness import artifacts, emulation, machine, measuring
from harness.errors import Unsupported
from harness.interfaces import RUNNERS, Runner, RunOptions, Session
from harness.records import Artifact, Measure, Measurement
from harness.tasks import MeasureTask
from runners.null import Null


class Emulated(Null):
    """A board that says that it is none."""

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        session = super().open(artifact, folder, options)
        session.board = {"id": "board", "emulated": "qemu-aarch64"}
        return session


def measured(
    task: MeasureTask, monkeypatch: pytest.MonkeyPatch, runner: type[Runner], measure: Measure
) -> Any:
    """What measuring an artifact that computes nothing answers."""
    artifact = empty_artifact()
    monkeypatch.setattr(artifacts, "load", lambda _: artifact)
    monkeypatch.setattr(artifacts, "golden", lambda _: None)
    monkeypatch.setattr(artifacts, "priors", lambda _: np.zeros((3000, 4), np.float32))
    monkeypatch.setattr(RUNNERS, "get", lambda _: runner)
    found = [
        Measurement(metric=name, value=1.0, unit="1")
        for name in ("accuracy.coco_map", "time.inference")
    ]
    monkeypatch.setattr(measuring, "_accuracy", lambda *_: found)
    cell = msgspec.structs.replace(task.cell, measure=measure)
    return measuring.measure(msgspec.structs.replace(task, cell=cell))


def test_this_process_is_not_emulated_unless_links_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert emulation.emulator() is None
    monkeypatch.setattr(
        os,
        "readlink",
        {
            emulation.SHOWN: "/usr/bin/python3.11",
            emulation.REAL: "/usr/bin/qemu-aarch64-static",
        }.__getitem__,
    )
    assert emulation.emulator() == "qemu-aarch64"


def test_an_emulated_machine_has_an_id_of_its_own_and_not_the_host_s_name() -> None:
    here = machine.machine_record()
    assert here.emulated is None
    there = msgspec.structs.replace(here, emulated="qemu-aarch64")
    assert machine.machine_id(there) != machine.machine_id(here) == here.id


@pytest.mark.parametrize("measure", ["latency", "profile", "sustain"])
@pytest.mark.parametrize("where", ["here", "there"])
def test_no_time_is_taken_on_an_emulated_processor(
    measure: Measure, where: str, measure_task: MeasureTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "here":
        monkeypatch.setattr(measuring, "emulator", lambda: "qemu-aarch64")
    with pytest.raises(Unsupported, match="the processor is emulated by qemu-aarch64"):
        measured(measure_task, monkeypatch, Emulated if where == "there" else Null, measure)


def test_a_record_names_the_emulator_and_holds_no_times(
    measure_task: MeasureTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(measure_task, monkeypatch, Emulated, "accuracy")
    assert found.emulated == "qemu-aarch64"
    assert [item.metric for item in found.measurements] == ["accuracy.coco_map"]
    found = measured(measure_task, monkeypatch, Null, "accuracy")
    assert found.emulated is None
    assert [item.metric for item in found.measurements] == ["accuracy.coco_map", "time.inference"]
