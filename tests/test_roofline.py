"""The machine's own speed, what a network costs on paper, and the share of the roofline."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from harness import machine_speed
from harness.errors import DetbenchError
from harness.machine_speed import Speed
from harness.profile import cost_of
from harness.records import Cost, ModelSpec
from harness.report import RunData
from harness.report import build_report as write_report
from harness.report.roofline import Roofs, intensity
from harness.report.timings import Timings
from tests.report_runs import MB2, made_up_run

SPEEDS = (
    Speed(threads=1, flops_per_s=(40e9, 50e9), bytes_per_s=(9e9, 10e9)),
    Speed(threads=2, flops_per_s=(100e9,), bytes_per_s=(12e9,)),
)
COST = Cost(macs=655_000_000, parameters=3_300_000, moved=17_000_000)


def with_speeds(run: RunData, cost: Cost | None = COST) -> RunData:
    """A run whose machine was calibrated and whose artifacts know what they cost."""
    artifacts = {
        name: msgspec.structs.replace(artifact, cost=cost)
        for name, artifact in run.artifacts.items()
    }
    speeds = msgspec.to_builtins(SPEEDS)
    return dataclasses.replace(run, run={**run.run, "speeds": speeds}, artifacts=artifacts)


def test_the_machine_is_measured_with_all_samples() -> None:
    (found,) = machine_speed.measure([1])
    assert found.threads == 1
    assert len(found.flops_per_s) >= machine_speed.LEAST
    assert len(found.bytes_per_s) >= machine_speed.LEAST
    assert 1e8 < found.flops < 1e13  # from a Raspberry Pi Zero to a large server's core
    assert 1e8 < found.bandwidth < 1e12
    assert found.flops == max(found.flops_per_s)


def test_a_failed_measurement_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "python")

    monkeypatch.setattr(machine_speed.subprocess, "run", broken)
    with pytest.raises(DetbenchError, match="with 2 threads cannot be measured"):
        machine_speed.measure([2])


def test_the_roof_is_memory_left_of_the_ridge_and_arithmetic_right_of_it() -> None:
    one = SPEEDS[0]
    assert one.roof(1.0) == 10e9
    assert one.roof(5.0) == 50e9
    assert one.roof(500.0) == 50e9


def test_the_cost_of_a_network_is_counted_by_hand(tiny_spec: ModelSpec) -> None:
    class Two(nn.Module):
        """8 × 8: a convolution to 4 channels, half the size, and a product with 10 columns."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
            self.last = nn.Linear(64, 10, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.last(torch.relu(self.conv(x)).flatten(1))
            return answer

    image = msgspec.structs.replace(tiny_spec.image, height=8, width=8)
    spec = dataclasses.replace(tiny_spec, build=Two, image=image)
    cost = cost_of(spec)
    assert cost.macs == 4 * 4 * 4 * 27 + 640
    assert cost.parameters == 108 + 640
    assert cost.moved == (192 + 64) + (64 + 10)


def test_int8_moves_a_quarter_and_a_batch_reads_weights_once() -> None:
    float_one, int8_one = (intensity(COST, kind, 1) for kind in ("float32", "int8"))
    assert int8_one == pytest.approx(4 * float_one)
    assert float_one == pytest.approx(2 * 655e6 / (4 * 20.3e6))
    assert intensity(COST, "float32", 8) == pytest.approx(8 * 2 * 655e6 / (4 * (3.3e6 + 8 * 17e6)))


def test_a_cell_has_its_share_of_the_roof() -> None:
    run = with_speeds(made_up_run())
    record = next(
        r
        for r in run.records
        if r.cell.measure == "latency" and r.cell.exporter == "onnx_float" and r.cell.threads == 1
    )
    artifact = run.artifacts[str(record.artifact_id)]
    timings = Timings()
    found = Roofs([run]).achieved(0, record, artifact, timings)
    pace = timings.median(record, "latency.inference")
    assert found
    assert pace
    assert found.flops == pytest.approx(2 * 655e6 / (pace.p50 / 1e9))
    assert found.share == pytest.approx(found.flops / 50e9)  # right of the ridge
    bare = with_speeds(made_up_run(), cost=None)
    assert Roofs([bare]).achieved(0, record, bare.artifacts[artifact.id], timings) is None
    assert Roofs([made_up_run()]).achieved(0, record, artifact, timings) is None


def test_the_report_shows_column_chart_and_machine(tmp_path: Path) -> None:
    paths = write_report([with_speeds(made_up_run(models=(MB2,)))], tmp_path, title="t")
    page = paths.html.read_text(encoding="utf-8")
    for shown in ("Of the roofline", "Operations per byte", "What the machines can do", "GFLOP/s"):
        assert shown in page
    assert "reaches" in page
    plain = write_report([made_up_run(models=(MB2,))], tmp_path / "plain", title="t")
    assert "roofline" not in plain.html.read_text(encoding="utf-8").lower().split("<style")[0]
    assert "Of the roofline" not in plain.html.read_text(encoding="utf-8")
