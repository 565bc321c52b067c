"""Tuning: budgets, what is kept between searches, and that the fastest candidate is taken."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters import _tvm_choose, _tvm_target, _tvm_time, _tvm_tune
from exporters._tvm_metaschedule import Scheduled
from exporters._tvm_target import CpuTarget
from exporters._tvm_time import Candidate, Times
from exporters._tvm_tunable import Tunables
from exporters._tvm_tune import Budget, Workload
from harness import cli, recipes
from harness.errors import BadConfig, CellCrashed, ExportFailed
from harness.interfaces import EXPORTERS
from harness.records import Artifact, ModelSpec
from tests.test_exporters_tvm_choose import layer_of
from tests.test_exporters_tvm_sparse import blocks_pruned, normal
from tests.test_runners_tvm_rpc import free_port, started

pytest.importorskip("torch", reason="the reference")
pytest.importorskip("tvm", reason="the compiler under test")

MakeArtifact = Callable[..., tuple[Artifact, Path]]


class Clock:
    """A timer that knows what each call shall take, and counts."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.timed = list(seconds), 0

    def __call__(self, module: Any, calls: Any, target: Any) -> list[float]:
        self.timed += len(calls)
        return [self.seconds.pop(0) if self.seconds else 1.0 for _ in calls]


class Drawn:
    """Stands for MetaSchedule: so many schedules to try."""

    def __init__(self, count: int) -> None:
        self.count = self.all = count

    def left(self) -> int:
        return self.count

    def best(self) -> Candidate | None:
        drawn = Candidate(f"drawn{self.count}", "drawn", lambda _: None, list)
        return drawn if self.count < self.all else None

    def search(self, count: int, times: Times) -> None:
        self.count -= count


def workload(name: str, weight: float, count: int, more: Drawn | None = None) -> Workload:
    def candidate(number: int) -> Candidate:
        return Candidate(f"{name}{number}", (name, number), lambda _: None, list)

    return Workload(name, weight, tuple(candidate(number) for number in range(count)), more)


@pytest.fixture
def times(native_target: CpuTarget, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Times]:
    tvm = pytest.importorskip("tvm")
    monkeypatch.setattr(tvm, "IRModule", dict)  # nothing is compiled in these tests
    return lambda clock: Times(native_target, clock)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("no", None),
        ("cached", Budget(trials=0)),
        ("15min", Budget(seconds=900)),
        ("500trials", Budget(trials=500)),
    ],
)
def test_budgets(text: str, budget: Budget | None) -> None:
    assert _tvm_tune.parse(text) == budget


@pytest.mark.parametrize("text", ["yes", "0min", "trials", "-3trials"])
def test_a_budget_that_is_none_is_refused_before_any_work(text: str, tiny_spec: ModelSpec) -> None:
    exporter = EXPORTERS.get("tvm_dense")()
    with pytest.raises(BadConfig, match=f"tune={text} is no budget: give a duration such as 15min"):
        exporter.unsupported(tiny_spec, {**exporter.options, "tune": text})


@pytest.mark.parametrize("budget", ["5", "1.5"])
@pytest.mark.parametrize(
    "asked",
    [
        ["export", "mb2_ssd_lite", "tvm_dense", "--tune", "BUDGET"],
        ["run", "--exporters", "tvm_dense:tune=BUDGET"],
        ["run", "--set", "exporters=tvm_dense:tune=BUDGET"],
        ["run", "matrix.yaml"],
    ],
    ids=["option", "exporters", "set", "file"],
)
def test_a_budget_without_a_unit_is_one_sentence_wherever_it_stands(
    asked: list[str],
    budget: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path))
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(f"exporters: ['tvm_dense:tune={budget}']\n", encoding="utf-8")
    words = [str(matrix) if word == "matrix.yaml" else word for word in asked]
    assert cli.main([word.replace("BUDGET", budget) for word in words]) == 2
    said = f"tune={budget} has no unit: give a duration such as {budget}min, or {budget}trials"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "board", "said"),
    [
        ("tvm_sparse", "rpi4", "board=rpi4 is no address: give HOST:PORT"),
        ("tvm_dense", "rpi4:9090", "tvm_dense times none unless it is tuned"),
    ],
)
def test_a_board_that_cannot_be_meant_is_refused(
    name: str, board: str, said: str, tiny_spec: ModelSpec
) -> None:
    exporter = EXPORTERS.get(name)()
    with pytest.raises(BadConfig, match=said):
        exporter.unsupported(tiny_spec, {**exporter.options, "board": board})


def test_another_machine_s_kernels_are_not_timed_here() -> None:
    elsewhere = dataclasses.replace(_tvm_target.resolve("native"), here=False)
    with pytest.raises(ExportFailed, match="this machine is no llvm"):
        _tvm_tune.budget_for("15min", Times(elsewhere))


def test_the_heaviest_kernel_is_tuned_first_and_a_budget_of_trials_holds(
    times: Callable[..., Times], capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    loads = [workload("light", 1, 4), workload("heavy", 9, 5)]
    _tvm_tune.search(loads, times(clock), Budget(trials=7))
    assert clock.timed == 7
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith("tuning 1 of 2, heavy: 5 tried, 1.00x; 0:00 spent, about")
    assert said[1].startswith("tuning 2 of 2, light: 2 tried")


def test_schedules_are_tried_after_the_cuts_of_the_same_kernel(
    times: Callable[..., Times], capfd: pytest.CaptureFixture[str]
) -> None:
    heavy, light = workload("heavy", 9, 3, Drawn(20)), workload("light", 1, 2, Drawn(5))
    # three cuts, then in turns: the usual one, which is the fastest, and the best schedule
    clock = Clock(1.0, 2.0, 3.0, 1.0, 0.5)
    known = times(clock)
    _tvm_tune.search([light, heavy], known, Budget(trials=27))
    said = [line.partition(";")[0] for line in capfd.readouterr().err.splitlines()]
    assert (
        said
        == [
            "tuning 1 of 2, heavy: 23 tried, 2.00x",
            "tuning 2 of 2, light: 4 tried, 1.00x",
            "tuning: the budget is spent, 3 candidates were not tried",
        ][: len(said)]
    )
    decided = heavy.decided(known)
    assert decided is not None
    assert (decided.winner.kind, decided.seconds, decided.usual) == ("drawn", 0.5, 1.0)
    assert clock.timed == 3 + 2 + 2 + 2


def test_a_kernel_of_which_only_the_usual_candidates_were_timed_is_not_tuned(
    times: Callable[..., Times],
) -> None:
    load = workload("one", 1, 3)._replace(usual=2)
    known = times(Clock())
    known.measure(load.candidates[:2])
    assert load.decided(known, measure=True) is None
    _tvm_tune.search([load], known, Budget(trials=9))
    assert load.decided(known) is not None
    nothing_else = workload("two", 1, 1)
    known.measure(nothing_else.candidates)
    _tvm_tune.search([nothing_else], known, Budget(trials=9))
    assert nothing_else.decided(known) is None


def test_what_hardly_gains_is_left_as_it_was(times: Callable[..., Times]) -> None:
    load = workload("one", 1, 2)
    known = times(Clock(1.0, 0.5, 1.0, 0.99))  # alone the second one seemed twice as fast
    _tvm_tune.search([load], known, Budget(trials=9))
    decided = load.decided(known)
    assert decided is not None
    assert (decided.winner, decided.seconds) == (load.candidates[0], 1.0)


def test_another_tvm_s_times_are_not_reused(
    native_target: CpuTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = workload("one", 1, 1)
    tvm = pytest.importorskip("tvm")
    monkeypatch.setattr(tvm, "IRModule", dict)
    Times(native_target, Clock(0.5)).measure(load.candidates)
    assert Times(native_target).known(load.candidates[0]) == 0.5
    fewer = dataclasses.replace(native_target, features=native_target.features[:-1])
    assert Times(fewer).known(load.candidates[0]) is None
    assert Times(native_target, where="rpi4:9090").known(load.candidates[0]) is None
    monkeypatch.setattr(tvm, "__version__", "0.1")
    assert Times(native_target).known(load.candidates[0]) is None


@pytest.mark.parametrize("text", ["", "[1.0]", "null", '{"one0": null}', '{"one0": "fast"}'])
def test_a_file_of_times_that_is_none_is_ignored(
    text: str, times: Callable[..., Times], native_target: CpuTarget
) -> None:
    load = workload("one", 1, 1)
    times(Clock(0.5)).measure(load.candidates)
    (path,) = Times(native_target).folder.parent.glob("*.json")
    path.write_text(text, encoding="utf-8")
    again = times(Clock(0.25))
    assert again.known(load.candidates[0]) is None
    assert again.measure(load.candidates) == {"one0": 0.25}


def test_a_time_depends_on_all_code_that_writes_the_kernel() -> None:
    """Every module below a kernel's is a part of the key: a change of one makes the time stale."""
    read = _tvm_time.code_files("_tvm_conv")
    assert {"_tvm_conv", "_tvm_conv_tile", "_tvm_after", "_tvm_tiles", "_tvm_tir"} <= read
    assert "_tvm_planes" in _tvm_time.code_files("_tvm_planes_point")
    assert "_tvm_choose" not in read


def test_a_search_goes_on_where_it_stopped(
    times: Callable[..., Times], capfd: pytest.CaptureFixture[str]
) -> None:
    loads = [workload("one", 2, 4), workload("two", 1, 4)]
    _tvm_tune.search(loads, times(Clock()), Budget(trials=4))
    capfd.readouterr()
    again = Clock()
    _tvm_tune.search(loads, times(again), Budget(seconds=60))
    assert again.timed == 4
    nothing = Clock()
    _tvm_tune.search(loads, times(nothing), Budget(trials=0))
    assert nothing.timed == 0
    assert "budget is spent" not in capfd.readouterr().err


def test_no_time_is_left_is_said(
    times: Callable[..., Times], capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    _tvm_tune.search([workload("one", 1, 3)], times(clock), Budget(trials=0))
    assert clock.timed == 0
    assert "the budget is spent, 3 candidates were not tried" in capfd.readouterr().err


def test_sparse_forms_beyond_the_usual_ones_are_taken_where_faster(
    native_target: CpuTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of(blocks_pruned(normal(0, 32, 200), 1, 0.8))
    usual = _tvm_choose.candidates(layer, native_target.registers)
    more = _tvm_choose.more_candidates(layer, native_target.registers)
    assert more[: len(usual)] == usual
    assert len(more) > len(usual)
    seconds = [5e-6] * (len(more) - 1) + [1e-6] + [5e-6, 1e-6]  # the last two in turns
    monkeypatch.setattr(_tvm_time, "here", Clock(*seconds))
    choice = _tvm_choose.choose([layer], Times(native_target), Budget(trials=1000))[0]
    assert choice.form == more[-1]
    assert (choice.record.untuned_us, choice.record.chosen_us) == (5.0, 1.0)
    untuned = _tvm_choose.choose([layer], Times(native_target))[0]
    assert untuned.form in usual
    assert untuned.record.untuned_us is None


@pytest.mark.parametrize(("scheduled", "taken"), [(0.9, True), (0.97, False)])
def test_schedules_are_taken_only_where_they_gain_enough_together(
    scheduled: float, taken: bool, times: Callable[..., Times], native_target: CpuTarget
) -> None:
    tunables = Tunables(native_target.lanes, native_target.registers)
    tunables.calls["one"] = 3
    schedule = Candidate("s", Scheduled(None, None, None), lambda _: None, list)  # type: ignore[arg-type]  # not compiled
    ours = workload("one", 1, 2).candidates
    decided = _tvm_tune.decide([*ours, schedule], [1.0, 0.99, scheduled])
    assert decided.scheduled

    class Decided:
        def decided(self, _: Times) -> _tvm_tune.Decision:
            return decided

    found = _tvm_tune._decisions(tunables, {"one": Decided()}, times(Clock()))  # type: ignore[dict-item]  # all that it asks
    assert found["one"].scheduled is taken
    if not taken:  # 1 % is not told apart from the usual kernel
        assert found["one"].winner == ours[0]
    assert found["one"].finalists[-1] is schedule


@pytest.mark.slow
def test_a_board_chooses_and_tunes(
    tiny_spec: ModelSpec, export_artifact: MakeArtifact, native_target: CpuTarget
) -> None:
    network, _ = recipes.parse("prune:0.9").apply(tiny_spec, copy.deepcopy(tiny_spec.build()))
    spec = dataclasses.replace(tiny_spec, build=lambda: network)
    with started("serve", "--port", free_port()) as (latency, _):
        board = latency.split()[-1]
        artifact, _ = export_artifact("tvm_sparse", spec, None, board=board, tune="2trials")
    assert {layer.reason for layer in artifact.layers} == {"measured"}
    assert all(layer.chosen_us and layer.chosen_us > 0 for layer in artifact.layers)
    with pytest.raises(CellCrashed, match="no RPC server at"):
        export_artifact("tvm_sparse", spec, None, board=board, tune="3trials")
