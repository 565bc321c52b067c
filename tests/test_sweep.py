"""Threads, batches, cores and units as they are asked for, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import affinity, machine, sweep
from harness.cli import build_parser
from harness.commands.run import overrides
from harness.config import Latency, Matrix, load
from harness.errors import BadConfig, Unsupported
from harness.plan import make_plan
from harness.units import parse_period_ns, parse_seconds

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("30fps", 33_333_333),
        ("30/s", 33_333_333),
        ("60 Hz", 16_666_667),
        ("33ms", 33_000_000),
        ("0.5s", 500_000_000),
        ("250us", 250_000),
    ],
)
def test_a_rate_and_its_period_are_the_same(text: str, ns: int) -> None:
    assert parse_period_ns(text, "--pace") == ns


@pytest.mark.parametrize("text", ["", "30", "fps", "-30fps", "0fps", "30 frames", "1e999fps", "x"])
def test_a_pace_that_is_none_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(BadConfig, match=r"neither a rate nor a period: write for example 30fps"):
        load(None, {"latency.pace": text})


@pytest.mark.parametrize("text", ["10", "min", "0s", "10 days", "30fps"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    assert parse_seconds("10min", "--sustain") == 600
    assert parse_seconds("1.5h", "--sustain") == 5400
    with pytest.raises(BadConfig, match="is no duration"):
        load(None, {"latency.sustain": text})


@pytest.mark.parametrize(("text", "cpus"), [("0", (0,)), ("0,2-3", (0, 2, 3)), ("3-3,1", (1, 3))])
def test_cores_are_written_as_for_taskset(text: str, cpus: tuple[int, ...]) -> None:
    assert affinity.parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,,1", "-1", "0-"])
def test_cores_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="cannot be read at"):
        affinity.parse_cpus(text)


def test_cores_that_are_not_ours_are_named() -> None:
    with pytest.raises(BadConfig, match=r"names core 4999, but this process may use 0"):
        affinity.bind("0,4999")


def test_a_system_without_affinity_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(Unsupported, match="needs a system that can bind"):
        affinity.bind("0")


def test_a_bound_process_is_another_machine_and_its_children_are_bound() -> None:
    script = (
        "from harness import affinity, machine; import os, subprocess, sys; affinity.bind('0');"
        "print(machine.usable_cores(), machine.machine_record().id);"
        "print(subprocess.check_output([sys.executable, '-c',"
        " 'import os; print(os.sched_getaffinity(0))'], text=True).strip(),"
        " os.environ['TVM_BIND_THREADS'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    first, second = answer.stdout.splitlines()
    assert first.split()[0] == "1"
    assert second == "{0} 0"
    if len(os.sched_getaffinity(0)) > 1:
        assert first.split()[1] != machine.machine_record().id


def test_more_threads_than_cores_and_a_quota_below_them_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "cpu_quota_cores", lambda: None)
    assert machine.too_many(cores) is None
    assert "logical cores that this process may use" in (machine.too_many(cores + 1) or "")
    monkeypatch.setattr(machine, "cpu_quota_cores", lambda: 0.5)
    refused = machine.too_many(1)
    assert refused is not None
    assert "CPU quota of 0.5 cores is below 1 thread," in refused


def test_the_matrix_sweeps_threads_batches_and_targets() -> None:
    matrix = Matrix(
        exporters=("onnx_float", "onnx_int8", "onnx_float:batch=2"),
        runners=("ort_cpu",),
        threads=(1, 2),
        batches=(1, 4),
        targets=("cpu", "npu"),
        latency=Latency(tier="smoke"),
    )
    pytest.importorskip("torch", reason="weights are found by torch's package")
    found = make_plan(matrix).cells
    timed = [p for p in found if p.cell.measure == "latency" and p.cell.target == "cpu"]
    sizes = {(p.cell.exporter, p.cell.batch, p.cell.export_options.get("batch")) for p in timed}
    assert sizes == {
        ("onnx_float", 1, 1),
        ("onnx_float", 4, 4),
        ("onnx_float", 2, 2),
        ("onnx_int8", 1, None),
        ("onnx_int8", 4, None),
    }
    single = {(p.cell.exporter, p.cell.batch) for p in found if p.cell.measure == "accuracy"}
    assert single == {("onnx_float", 1), ("onnx_float", 2), ("onnx_int8", 1)}
    for planned in found:
        if (planned.cell.exporter, planned.cell.batch) == ("onnx_int8", 4):
            assert "has no option batch" in (planned.unsupported or "")
        elif planned.cell.target == "npu":
            assert planned.unsupported == "ort_cpu runs on target cpu, not npu"
    assert len({p.id for p in found}) == len(found)


def test_each_target_has_its_own_runners_unless_they_are_named() -> None:
    pytest.importorskip("torch", reason="weights are found by torch's package")
    asked = {"exporters": ["tvm_dense"], "targets": ["cpu", "rpi4@tracker:9190"]}
    pairs = {(p.cell.runner, p.cell.target) for p in make_plan(load(None, asked)).cells}
    assert pairs == {("tvm_cpu", "cpu"), ("tvm_rpc", "rpi4@tracker:9190")}


def test_several_targets_are_one_option() -> None:
    options = build_parser().parse_args(["run", "--targets", "cpu,rpi4@tracker:9190"])
    assert overrides(options)["targets"] == ["cpu", "rpi4@tracker:9190"]


def test_profile_and_sustained_run_take_the_fewest_and_the_most_threads() -> None:
    matrix = Matrix(threads=(1, 2, 4096), measures=("latency", "profile", "sustain"))
    found = {(a.measure, a.threads) for a in sweep.asked(matrix, single=True)}
    most = max(n for n in (1, 2) if machine.too_many(n) is None)
    assert {("profile", 1), ("sustain", most)} <= found
    assert [a.measure for a in sweep.asked(matrix, single=False)] == ["latency"] * 3


@pytest.mark.parametrize("key", ["cpus", "latency.pace"])
def test_what_decides_a_result_is_in_the_cell_s_name(key: str) -> None:
    plain, other = load(None, {}), load(None, {key: "0" if key == "cpus" else "30fps"})
    assert sweep.decides(plain, "latency") != sweep.decides(other, "latency")
    assert sweep.decides(plain, "accuracy") == sweep.decides(other, "accuracy")
