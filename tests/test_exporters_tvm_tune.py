"""Tuning: budgets, what is kept between searches, and that the fastest candidate is taken."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters import _tvm_choose, _tvm_target, _tvm_time, _tvm_tune
from exporters._tvm_time import Candidate, Times
from exporters._tvm_tune import Budget, Workload
from harness import recipes
from harness.errors import BadConfig, CellCrashed, ExportFailed
from harness.interfaces import EXPORTERS, RUNNERS, RunOptions
from harness.records import Artifact, ModelSpec
from tests.test_exporters_tvm_sparse import blocks_pruned, layer_of, normal
from tests.test_runners_tvm_rpc import free_port, started

torch = pytest.importorskip("torch", reason="the reference")
pytest.importorskip("tvm", reason="the compiler under test")

MakeArtifact = Callable[..., tuple[Artifact, Path]]


class Clock:
    """A timer that knows what each call shall take, and counts."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.timed = list(seconds), 0

    def __call__(self, module: Any, calls: Any, target: Any) -> list[float]:
        self.timed += len(calls)
        return [self.seconds.pop(0) if self.seconds else 1.0 for _ in calls]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _tvm_target.CpuTarget:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    return _tvm_target.resolve("native")


def workload(name: str, weight: float, count: int) -> Workload:
    def candidate(number: int) -> Candidate:
        return Candidate(f"{name}{number}", (name, number), lambda _: None, list)

    return Workload(name, weight, tuple(candidate(number) for number in range(count)))


@pytest.fixture
def times(target: _tvm_target.CpuTarget, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Times]:
    tvm = pytest.importorskip("tvm")
    monkeypatch.setattr(tvm, "IRModule", dict)  # nothing is compiled in these tests
    return lambda clock: Times(target, clock)


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


@pytest.mark.parametrize("text", ["yes", "15", "0min", "trials", "-3trials"])
def test_a_budget_that_is_none_is_refused_before_any_work(text: str, tiny_spec: ModelSpec) -> None:
    exporter = EXPORTERS.get("tvm_dense")()
    with pytest.raises(BadConfig, match=f"tune={text} is no budget: give a duration such as 15min"):
        exporter.unsupported(tiny_spec, {**exporter.options, "tune": text})


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
    target: _tvm_target.CpuTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of(blocks_pruned(normal(0, 32, 200), 1, 0.8))
    usual = _tvm_choose.candidates(layer, target.registers)
    more = _tvm_choose.more_candidates(layer, target.registers)
    assert more[: len(usual)] == usual
    assert len(more) > len(usual)
    seconds = [5e-6] * (len(more) - 1) + [1e-6]
    monkeypatch.setattr(_tvm_time, "here", Clock(*seconds))
    choice = _tvm_choose.choose([layer], Times(target), Budget(trials=1000))[0]
    assert choice.form == more[-1]
    assert (choice.record.untuned_us, choice.record.chosen_us) == (5.0, 1.0)
    untuned = _tvm_choose.choose([layer], Times(target))[0]
    assert untuned.form in usual
    assert untuned.record.untuned_us is None


@pytest.mark.slow
def test_a_tuned_module_lists_its_kernels_and_answers_the_same(
    tiny_spec: ModelSpec,
    tiny_images: NDArray[np.float32],
    export_artifact: MakeArtifact,
    target: _tvm_target.CpuTarget,
) -> None:
    artifact, folder = export_artifact("tvm_dense", tiny_spec, None, tune="6trials")
    assert artifact.layers
    for layer in artifact.layers:
        assert layer.chosen_us is not None
        assert layer.untuned_us is not None
        assert layer.chosen_us <= layer.untuned_us
        assert "candidates tried" in layer.reason
    assert any(note.startswith("tuned: ") for note in artifact.notes)
    with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        found = session.run(tiny_images[:1])
    with torch.no_grad():
        expected = tiny_spec.build()(torch.from_numpy(tiny_images[:1]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_board_chooses_and_tunes(
    tiny_spec: ModelSpec, export_artifact: MakeArtifact, target: _tvm_target.CpuTarget
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
