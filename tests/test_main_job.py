"""The main job as a user runs it: every export of a shipped model, measured and reported."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness import results
from harness.extras import installed
from harness.interfaces import EXPORTERS

ROOT = Path(__file__).resolve().parents[1]
MODEL = "mb2_ssd_lite"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of everything that is installed, with few images and the tier for tests."""
    folder = tmp_path_factory.mktemp("main-job")
    return folder, _run(folder)


def _run(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["--models", MODEL, "--images", "60", "--tier", "smoke", "--threads", "1,2"]
    options += ["--set", "calibration.images=40", "--results", str(folder / "results")]
    return subprocess.run(
        [sys.executable, "-m", "harness", "run", *options, "--allow-tainted"],
        cwd=ROOT,
        env={**os.environ, "DETBENCH_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=1800,
    )


def _expected() -> set[str]:
    plugins = (EXPORTERS.get(path.stem) for path in (ROOT / "exporters").glob("[!_]*.py"))
    usual = (plugin for plugin in plugins if not plugin.on_request)
    return {plugin.name for plugin in usual if all(map(installed, plugin.modules))}


def test_every_cell_ends_as_asked(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, process = done
    assert process.returncode == 0, process.stdout + process.stderr
    (run_folder,) = results.find_runs([folder / "results"])
    machine, run, records, artifacts = results.load_run(run_folder)
    assert machine["cores"] >= 1
    assert Counter(record.state for record in records).keys() <= {"ok", "tainted"}
    assert len(records) == len(run.plan) == 3 * len(_expected())
    assert {record.cell.exporter for record in records} == _expected()
    assert len(artifacts) == len(_expected())
    for record in records:
        used = record.measurement("threads.used")
        if used is not None and used.value is not None:
            # the caller's thread may wait by spinning beside a pool of as many as were asked for
            assert used.value <= record.cell.threads + 1, record.cell_id


def test_exports_agree_with_the_float_model_on_accuracy(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    (run_folder,) = results.find_runs([done[0] / "results"])
    _, _, records, _ = results.load_run(run_folder)
    found = {
        record.cell.exporter: record.measurement("accuracy.voc12_map")
        for record in records
        if record.cell.measure == "accuracy"
    }
    scores = {name: measured.value for name, measured in found.items() if measured is not None}
    reference = scores["torch_float"]
    assert reference is not None
    assert reference > 0.3, "a shipped model must detect"
    for name in _expected():
        score = scores[name]
        assert score is not None
        tolerance = 0.002 if EXPORTERS.get(name).precision == "float32" else 0.15
        assert abs(score - reference) <= tolerance, name


def test_the_report_shows_every_cell(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    (run_folder,) = results.find_runs([done[0] / "results"])
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    with (run_folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert "http://" not in page.replace("http://www.w3.org", "")
    for exporter in _expected():
        assert exporter in page
        assert sum(exporter in row.values() for row in rows) >= 2


def test_the_same_command_again_is_quick(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = done
    started = time.monotonic()
    process = _run(folder)
    assert process.returncode == 0, process.stderr
    assert time.monotonic() - started < 15
    (run_folder,) = results.find_runs([folder / "results"])
    plan = json.loads((run_folder / "run.json").read_bytes())["plan"]
    assert len(plan) == 3 * len(_expected())
