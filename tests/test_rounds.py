"""METHOD rules 6, 7, 8 and 12 on a whole timing phase, with fake children on a fake machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness import machine as machine_module
from harness import results, stats, timed
from harness.config import Latency, Matrix
from harness.execute import Execution
from harness.machine_state import MachineState, state
from harness.plan import Plan, PlannedCell
from harness.progress import Progress
from harness.records import Cell, Measurement, RunRecord
from harness.results import RunFolder
from harness.rounds import floor_rounds, interleaved
from harness.tasks import ChildResult, MeasureTask

MS = 1e6
CALM = state()
QUIET = Progress(1, quiet=True)


class Machine:
    """A fake machine that gets slower with every child, and children that only pretend."""

    def __init__(self, *, drift: float, noise: float = 0.002, seed: int = 0) -> None:
        self.drift, self.noise = drift, noise
        self.rng = np.random.default_rng(seed)
        self.speed = {"a": 10 * MS, "b": 10 * MS, "c": 11.5 * MS}
        self.slowed = 1.0
        self.names: list[str] = []
        self.state: Callable[[], MachineState] = lambda: CALM

    def children(self, tasks: Sequence[tuple[MeasureTask, str]]) -> list[ChildResult]:
        return [self.child(task, name) for task, name in tasks]

    def child(self, task: MeasureTask, name: str) -> ChildResult:
        self.names.append(name)
        ms = self.speed[task.cell.model] * self.slowed * self.rng.lognormal(0, self.noise)
        samples = tuple((ms * self.rng.lognormal(0, self.noise, 24)).tolist())
        self.slowed *= 1 + self.drift
        timed = Measurement(
            metric="latency.inference",
            value=float(np.median(samples)),
            unit="ns",
            samples=samples,
            conditions={"statistic": "p50", "rounds": [24]},
        )
        return ChildResult(state="ok", measurements=(timed,), elapsed_ns=1)


def timed_run(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, *, rounds: int = 4
) -> tuple[dict[str, RunRecord], float | None]:
    """Records by model and the noise floor of a run over cells a, b and c."""
    matrix = Matrix(latency=Latency(tier="rapid", rounds=rounds, seed=3))
    cells = []
    for name in machine.speed:
        cell = Cell(
            model=name,
            model_options={},
            weights="none",
            exporter="none",
            export_options={},
            runner="none",
            measure="latency",
            threads=1,
        )
        cells.append(PlannedCell(f"{name}-cell", cell, folder / name, None, None))
    run_folder = RunFolder(folder, "machine", "run")
    planned = tuple(cell.planned_id for cell in cells)
    run_folder.write_run(
        results.Run(
            name="run",
            command=(),
            started_at="2026-01-01T00:00:00+00:00",
            git_revision="none",
            git_dirty=False,
            tier="rapid",
            rounds=rounds,
            seed=3,
            images=1,
            plan=planned,
        )
    )
    monkeypatch.setattr(machine_module, "state", machine.state)
    monkeypatch.setenv("DETBENCH_CACHE", str(folder / "cache"))
    execution = Execution(Plan(tuple(cells), ()), matrix, run_folder, "machine")
    monkeypatch.setattr(timed.machine_speed, "measure", lambda threads: ())
    monkeypatch.setattr(execution, "children", machine.children)
    execution.run(QUIET)
    written = run_folder.read_run()
    assert written is not None
    return {r.cell.model: r for r in execution.records.values()}, written.noise_floor


def verdict(a: RunRecord, b: RunRecord, floor: float | None) -> stats.Verdict:
    first, second = (record.measurement("latency.inference") for record in (a, b))
    assert first is not None
    assert second is not None
    rounds = (first.conditions["rounds"], second.conditions["rounds"])
    return stats.compare(first.samples, second.samples, noise_floor=floor, rounds=rounds)


@pytest.mark.parametrize(
    ("rounds", "trial", "count"), [(2, False, 8), (6, False, 12), (2, True, 4)]
)
def test_the_control_is_timed_as_often_as_two_cells(rounds: int, trial: bool, count: int) -> None:
    assert floor_rounds(rounds, trial=trial) == count


def test_the_noise_floor_is_measured_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(drift=0.0)
    found, floor = timed_run(tmp_path, machine, monkeypatch, rounds=4)
    assert [".aa" in name for name in machine.names] == [True] * 8 + [False] * 12
    assert floor is not None
    assert 0.001 < floor < 0.05
    assert verdict(found["a"], found["c"], floor).outcome == "slower"


@pytest.mark.parametrize("drift", [0.01, -0.01])
def test_planted_drift_vanishes_and_a_planted_difference_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drift: float
) -> None:
    found, floor = timed_run(tmp_path, Machine(drift=drift), monkeypatch)
    assert verdict(found["a"], found["b"], floor).outcome == "indistinguishable"
    slower = verdict(found["a"], found["c"], floor)
    assert slower.ratio == pytest.approx(1.15, abs=0.02)
    assert slower.outcome in ("slower", "indistinguishable")  # the drift is in the floor too


def test_without_turns_the_same_drift_would_be_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed, "round_order", lambda cells, number, seed: list(range(cells)))
    machine = Machine(drift=0.02)
    found, _ = timed_run(tmp_path, machine, monkeypatch)
    assert verdict(found["a"], found["b"], 0.01).ratio == pytest.approx(1.02, abs=0.005)


def test_rounds_keep_their_place_time_and_both_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = timed_run(tmp_path, Machine(drift=0.0), monkeypatch)
    for number in range(4):
        assert sorted(record.rounds[number].place for record in found.values()) == [0, 1, 2]
    for record in found.values():
        assert len(record.rounds) == 4
        for one in record.rounds:
            before = msgspec.convert(one.before, MachineState)
            after = msgspec.convert(one.after, MachineState)
            assert after.monotonic_ns >= before.monotonic_ns
            assert one.of == 3


def test_cells_that_took_turns_are_told_from_cells_that_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = timed_run(tmp_path, Machine(drift=0.0), monkeypatch)
    assert interleaved(found["a"], found["b"])
    late = [msgspec.structs.replace(r, started_at="2099-01-01T00:00:00") for r in found["b"].rounds]
    other_day = msgspec.structs.replace(found["b"], rounds=tuple(late))
    assert not interleaved(found["a"], other_day)
    assert not interleaved(other_day, found["a"])
    assert interleaved(found["a"], msgspec.structs.replace(other_day, rounds=()))


def test_a_machine_that_changes_meanwhile_taints_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count()
    machine = Machine(drift=0.0)
    machine.state = lambda: msgspec.structs.replace(CALM, governor=f"governor {next(looks)}")
    found, _ = timed_run(tmp_path, machine, monkeypatch)
    for record in found.values():
        assert record.state == "tainted"
        assert "the governor changed" in (record.error or "")
        assert record.rounds[0].tainted


def test_a_control_that_fails_gives_way_to_the_next_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Machine):
        def child(self, task: MeasureTask, name: str) -> ChildResult:
            if task.cell.model == "a":
                self.names.append(name)
                return ChildResult(state="crashed", error="planted")
            return super().child(task, name)

    machine = Broken(drift=0.0)
    found, floor = timed_run(tmp_path, machine, monkeypatch)
    assert [name[:8] for name in machine.names[:9]] == ["a-cell.a"] * 8 + ["b-cell.a"]
    assert floor is not None
    assert found["a"].state == "crashed"
    assert found["b"].state == "ok"
