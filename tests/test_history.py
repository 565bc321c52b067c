"""Time lines: planted steps are found where they are, noise and drift are not taken for them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness.cli import main
from harness.commands.report import write
from harness.history.steps import FLOOR_SIGMAS, course
from harness.records import RunRecord
from harness.report.chart_lines import steps_1_2_5
from tests.report_runs import MB2
from tests.run_folders import write_run

pytest.importorskip("ruptures", reason="finds the steps")
FLOOR, POINTS, HISTORIES = 0.03, 40, 150


def _medians(seed: int, noise: float = 1.0) -> np.ndarray:
    """A steady history; its scatter is what a noise floor of `FLOOR` says, times ``noise``."""
    rng = np.random.default_rng(seed)
    sigma = noise * np.log1p(FLOOR) / FLOOR_SIGMAS
    return np.asarray(1e7 * np.exp(rng.normal(0, sigma, POINTS)))


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "most"), [(1.0, 0), (3.0, 3)])
def test_noise_makes_a_step_in_at_most_two_of_a_hundred_histories(noise: float, most: int) -> None:
    wrong = [course(_medians(seed, noise), FLOOR).kind != "steady" for seed in range(HISTORIES)]
    assert sum(wrong) <= most


def test_a_planted_step_is_found_at_its_place() -> None:
    for seed in range(20):
        medians = _medians(seed)
        medians[25:] *= 1.08
        found = course(medians, FLOOR)
        assert found.kind == "steps"
        (step,) = found.steps
        assert abs(step.at - 25) <= 1
        assert step.ratio == pytest.approx(1.08, abs=0.02)


def test_two_steps_are_two() -> None:
    medians = _medians(0)
    medians[10:20] *= 1.2
    assert [step.at for step in course(medians, FLOOR).steps] == [10, 20]


def test_drift_is_no_step() -> None:
    for seed in range(20):
        found = course(_medians(seed) * np.linspace(1, 1.15, POINTS), FLOOR)
        assert found.kind == "drift"
        assert found.drift == pytest.approx(1.15, abs=0.03)


def test_the_last_two_points_are_never_a_step_and_a_spike_is_none() -> None:
    medians = _medians(1)
    medians[-2:] *= 1.3
    assert not any(step.at >= POINTS - 2 for step in course(medians, FLOOR).steps)
    spike = _medians(2)
    spike[15] *= 1.1
    assert course(spike, FLOOR).steps == ()
    assert course(medians[:5], FLOOR).kind == "too short"


def test_the_command_names_the_revision_of_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in range(10):
        rng = np.random.default_rng(day)
        slower = (1.15 if day >= 6 else 1.0) * float(np.exp(rng.normal(0, 0.002)))

        def at(record: RunRecord, day: int = day) -> RunRecord:
            when = f"2026-11-{day + 1:02d}T00:00:00+00:00"
            return msgspec.structs.replace(record, started_at=when)

        write_run(
            tmp_path,
            name=f"night{day}",
            models=[MB2],
            slower=slower,
            revision=f"{day:x}" * 40,
            change=at,
        )
    assert main(["history", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "mb2_ssd_lite onnx_int8 on ort_cpu, 1 thread (bench-a): 10 points" in text
    assert "step: 1.1" in text
    assert "slower from 666666666666 (2026-11-07" in text
    assert main(["history", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {line["course"]["kind"] for line in found} == {"steps"}
    assert main(["history", str(tmp_path), "--metric", "latency.nothing"]) == 2
    assert "no record has 'latency.nothing'" in capsys.readouterr().err


def test_the_report_draws_what_was_measured_again_and_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the charts")
    for day in range(7):
        when = f"2026-11-{day + 1:02d}T00:00:00+00:00"
        write_run(
            tmp_path,
            name=f"night{day}",
            models=[MB2],
            slower=1.2 if day >= 4 else 1.0,
            revision=f"{day:x}" * 40,
            change=lambda record, when=when: msgspec.structs.replace(record, started_at=when),
        )
    folders = sorted(tmp_path.glob("*/night*"))
    page = write(folders, tmp_path / "out", "t", pictures=False).read_text(encoding="utf-8")
    assert "Over time" in page
    assert "All 8 rows: 1.20× slower from record 5 on (444444444444). 1 more row not drawn." in page
    assert steps_1_2_5(4.2, 68.0) == [5, 10, 20, 50]
    assert steps_1_2_5(3.0, 3.6) == [3.0, 3.6]
    few = write(folders[:5], tmp_path / "few", "t", pictures=False).read_text(encoding="utf-8")
    assert "Over time" not in few
