"""Tuning: budgets, what is kept between searches, and that the fastest candidate is taken."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters import (
    _tvm_build,
    _tvm_choose,
    _tvm_conv,
    _tvm_conv_tile,
    _tvm_metaschedule,
    _tvm_target,
    _tvm_time,
    _tvm_tunable,
    _tvm_tune,
)
from exporters._tvm_after import Add, Affine, Clip
from exporters._tvm_conv_tile import Conv
from exporters._tvm_metaschedule import Database, Schedules
from exporters._tvm_tiles import Window
from exporters._tvm_time import Candidate, Times
from exporters._tvm_tune import Budget, Workload
from harness import cli, recipes
from harness.errors import BadConfig, CellCrashed, ExportFailed
from harness.interfaces import EXPORTERS, RUNNERS, RunOptions
from harness.records import Artifact, ModelSpec
from tests.test_exporters_tvm_sparse import blocks_pruned, layer_of, normal
from tests.test_runners_tvm_rpc import free_port, started

torch = pytest.importorskip("torch", reason="the reference")
pytest.importorskip("tvm", reason="the compiler under test")

MakeArtifact = Callable[..., tuple[Artifact, Path]]


CONVS = [
    Conv(
        window=Window(height=1, width=19),
        inputs=16,
        outputs=40,
        after=(Add(), Clip(0.0, 6.0)),
    ),
    Conv(window=Window(height=1, width=1), inputs=16, outputs=5),
    Conv(window=Window(height=1, width=400), inputs=16, outputs=40),
]
"""With a rest of pixels and of outputs; of one pixel and one vector; large enough for threads."""


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


def first_or_last(module: Any, calls: Any, target: Any) -> list[float]:
    """A timer by which the first of many candidates is the fastest, and the last of two."""
    seconds = [1e-6 * number for number, _ in enumerate(calls, start=1)]
    return seconds[::-1] if len(calls) == 2 else seconds


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


def test_a_budget_without_a_unit_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "mb2_ssd_lite", "tvm_dense", "--tune", "5"]) == 2
    assert (
        "--tune 5 has no unit: give a duration such as 5min, or 5trials" in capsys.readouterr().err
    )


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


@pytest.mark.parametrize("conv", CONVS)
def test_schedules_that_metaschedule_drew_compute_what_our_kernel_does(
    conv: Conv, target: _tvm_target.CpuTarget
) -> None:
    times, lanes = Times(target, first_or_last), target.lanes
    schedules = Schedules(conv, Database(target, times.folder))
    cut = _tvm_conv.plan(conv, lanes, target.registers)
    ours = Candidate("ours", "ours", lambda name: _tvm_conv.kernel(name, conv, cut, threads=False))
    times.measure([ours])
    schedules.search(2, times)
    assert schedules.left() == _tvm_metaschedule.TRIALS - 2
    found = schedules.best()
    assert found is not None
    weight, bias = normal(0, conv.outputs, conv.inputs, 1, 1), normal(1, conv.outputs)
    answers = [
        called(write("kernel"), _tvm_conv_tile.pack(conv, plan, weight, bias), target)
        for write, plan in (
            (ours.write, cut),
            (
                found.kind.write,
                _tvm_conv.plan(conv, lanes, target.registers, _tvm_metaschedule.TILE),
            ),
        )
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    again = Schedules(conv, Database(target, times.folder))  # as the next process reads it
    assert again.tried() == 2
    assert again.best() is not None
    other = dataclasses.replace(conv, outputs=conv.outputs + 64)
    assert Schedules(other, Database(target, times.folder)).best() is None


def called(
    function: Any, packed: Sequence[NDArray[Any]], target: _tvm_target.CpuTarget
) -> NDArray[Any]:
    """What a kernel answers for random pixels and these weights."""
    tvm = pytest.importorskip("tvm")
    image, _, _, *rest = _tvm_time.random_arguments(function)
    tensors = [tvm.runtime.tensor(array) for array in (image, *packed, *rest)]
    _tvm_build.compile_module(tvm.IRModule({"kernel": function}), target)["kernel"](*tensors)
    return np.array(tensors[-1].numpy())


def test_metaschedule_is_not_asked_where_its_space_does_not_fit() -> None:
    conv = CONVS[0]
    assert _tvm_metaschedule.able(conv, 8)
    window = Window(height=4, width=4, kernel=(3, 3))
    for other in (
        dataclasses.replace(conv, inputs=conv.inputs + 1),
        dataclasses.replace(conv, after=(Affine(),)),
        dataclasses.replace(conv, window=window),
        "no convolution",
    ):
        assert not _tvm_metaschedule.able(other, 8)


def test_a_database_that_was_cut_off_is_named(target: _tvm_target.CpuTarget) -> None:
    folder = Times(target).folder
    folder.mkdir()
    (folder / "workloads.json").write_text('["abc", "', encoding="utf-8")
    with pytest.raises(ExportFailed, match=f"cannot read its trials in {folder}: delete that"):
        Database(target, folder)


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
    seconds = [5e-6] * (len(more) - 1) + [1e-6] + [5e-6, 1e-6]  # the last two in turns
    monkeypatch.setattr(_tvm_time, "here", Clock(*seconds))
    choice = _tvm_choose.choose([layer], Times(target), Budget(trials=1000))[0]
    assert choice.form == more[-1]
    assert (choice.record.untuned_us, choice.record.chosen_us) == (5.0, 1.0)
    untuned = _tvm_choose.choose([layer], Times(target))[0]
    assert untuned.form in usual
    assert untuned.record.untuned_us is None


@pytest.mark.slow
def test_a_schedule_takes_the_place_of_a_slower_kernel(
    tiny_spec: ModelSpec,
    tiny_images: NDArray[np.float32],
    export_artifact: MakeArtifact,
    target: _tvm_target.CpuTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tvm_metaschedule, "TRIALS", 2)
    monkeypatch.setattr(_tvm_tunable, "MOST_CUTS", 3)
    monkeypatch.setattr(_tvm_time, "here", first_or_last)
    artifact, folder = export_artifact("tvm_dense", tiny_spec, None, tune="1000trials")
    by_tvm = [layer for layer in artifact.layers if layer.chosen == _tvm_tune.SCHEDULED]
    assert by_tvm
    for layer in artifact.layers:
        assert layer.chosen_us is not None
        assert layer.untuned_us is not None
        assert layer.chosen_us <= layer.untuned_us
        assert "cuts tried" in layer.reason
    assert "in turns: as untuned 2.0 µs, a schedule of MetaSchedule 1.0 µs" in by_tvm[0].reason
    assert any(f"is the fastest of {len(by_tvm)}" in note for note in artifact.notes)
    with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=2)) as session:
        found = session.run(tiny_images[:1])
    with torch.no_grad():
        expected = tiny_spec.build()(torch.from_numpy(tiny_images[:1]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4)
    cached, _ = export_artifact("tvm_dense", tiny_spec, None, tune="cached")
    assert cached.layers == artifact.layers


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
