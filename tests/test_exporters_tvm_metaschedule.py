"""MetaSchedule's schedules of pointwise convolutions: what they compute, where they are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters import (
    _tvm_board,
    _tvm_build,
    _tvm_conv,
    _tvm_conv_tile,
    _tvm_metaschedule,
    _tvm_time,
    _tvm_tunable,
    _tvm_tune,
)
from exporters._tvm_after import Add, Affine, Clip
from exporters._tvm_conv_tile import Conv
from exporters._tvm_metaschedule import Database, Schedules
from exporters._tvm_target import CpuTarget
from exporters._tvm_tiles import Window
from exporters._tvm_time import Candidate, Times
from exporters._tvm_tune import Budget, Workload
from harness.errors import ExportFailed
from harness.interfaces import RUNNERS, RunOptions
from harness.records import Artifact, ModelSpec
from tests.test_exporters_tvm_sparse import normal
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


def first_or_last(module: Any, calls: Any, target: Any) -> list[float]:
    """A timer by which the first of many candidates is the fastest, and the last of two."""
    seconds = [1e-6 * number for number, _ in enumerate(calls, start=1)]
    return seconds[::-1] if len(calls) == 2 else seconds


@pytest.mark.parametrize("conv", CONVS)
def test_schedules_that_metaschedule_drew_compute_what_our_kernel_does(
    conv: Conv, native_target: CpuTarget
) -> None:
    times, lanes = Times(native_target, first_or_last), native_target.lanes
    schedules = Schedules(conv, Database(native_target, times.folder))
    cut = _tvm_conv.plan(conv, lanes, native_target.registers)
    ours = Candidate("ours", "ours", lambda name: _tvm_conv.kernel(name, conv, cut, threads=False))
    times.measure([ours])
    schedules.search(2, times)
    assert schedules.left() == _tvm_metaschedule.TRIALS - 2
    found = schedules.best()
    assert found is not None
    weight, bias = normal(0, conv.outputs, conv.inputs, 1, 1), normal(1, conv.outputs)
    answers = [
        called(write("kernel"), _tvm_conv_tile.pack(conv, plan, weight, bias), native_target)
        for write, plan in (
            (ours.write, cut),
            (
                found.kind.write,
                _tvm_conv.plan(conv, lanes, native_target.registers, _tvm_metaschedule.TILE),
            ),
        )
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    again = Schedules(conv, Database(native_target, times.folder))  # as the next process reads it
    assert again.tried() == 2
    assert again.best() is not None
    other = dataclasses.replace(conv, outputs=conv.outputs + 64)
    assert Schedules(other, Database(native_target, times.folder)).best() is None


def called(function: Any, packed: Sequence[NDArray[Any]], target: CpuTarget) -> NDArray[Any]:
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


def test_a_database_that_was_cut_off_is_named(native_target: CpuTarget) -> None:
    folder = Database(native_target, Times(native_target).folder).folder
    (folder / "workloads.json").write_text('["abc", "', encoding="utf-8")
    with pytest.raises(ExportFailed, match=f"cannot read its trials in {folder}: delete that"):
        Database(native_target, Times(native_target).folder)


@pytest.mark.slow
def test_a_schedule_takes_the_place_of_a_slower_kernel(
    tiny_spec: ModelSpec,
    tiny_images: NDArray[np.float32],
    export_artifact: MakeArtifact,
    native_target: CpuTarget,
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
    with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        found = session.run(tiny_images[:1])
    with torch.no_grad():
        expected = tiny_spec.build()(torch.from_numpy(tiny_images[:1]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4)
    cached, _ = export_artifact("tvm_dense", tiny_spec, None, tune="cached")
    assert cached.layers == artifact.layers


@pytest.mark.slow
def test_schedules_are_timed_on_a_board(
    native_target: CpuTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tvm_metaschedule, "TRIALS", 2)
    conv = CONVS[0]
    cut = _tvm_conv.plan(conv, native_target.lanes, native_target.registers)
    ours = Candidate("ours", "ours", lambda name: _tvm_conv.kernel(name, conv, cut, threads=False))
    with started("serve", "--port", free_port()) as (latency, _):
        where = _tvm_board.parse(latency.split()[-1])
        assert where is not None
        times = Times(native_target, _tvm_board.OnBoard(where), str(where))
        schedules = Schedules(conv, Database(native_target, times.folder))
        load = Workload("one", 1.0, (ours,), schedules)
        _tvm_tune.search([load], times, Budget(trials=3))
    decided = load.decided(times)
    assert decided is not None
    assert schedules.left() == 0
    assert len(decided.all_seconds) == 2
    assert all(1e-7 < seconds < 1 for seconds in decided.all_seconds)
    here = Schedules(conv, Database(native_target, Times(native_target).folder))
    assert here.best() is None  # a board's times are none of this machine's
