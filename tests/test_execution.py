"""A run from matrix to records: isolation, resume, and what the supervisor says.

The plug-in `tests/plugins/grid.py` supplies a model, an exporter, a runner that works and runners
that fail in every way a runtime can.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import artifacts, results
from harness.records import RunRecord, decode

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugins" / "grid.py"
pytestmark = pytest.mark.slow


class Bench:
    """Runs ``detbench`` in a process of its own, with its cache and results in a folder."""

    def __init__(self, folder: Path, drawn: Path) -> None:
        import torch
        from safetensors.torch import save_file

        from harness.interfaces import MODELS
        from harness.registry import load_file

        load_file(PLUGIN)
        self.folder = folder
        self.labels = folder / "labels.txt"
        from harness.datasets.shapes import LABELS

        self.labels.write_text("\n".join(LABELS))
        self.weights = folder / "grid.safetensors"
        with torch.no_grad():
            state = MODELS.get("grid")(LABELS, seed=3).build().state_dict()
        save_file(state, self.weights)
        self.environment = {**os.environ, "DETBENCH_CACHE": str(folder / "cache")}
        (folder / "cache").mkdir()
        (folder / "cache" / "datasets").symlink_to(drawn, target_is_directory=True)

    def arguments(self, *more: str) -> list[str]:
        common = ["--plugin", str(PLUGIN), "--models", "grid", "--weights", str(self.weights)]
        common += ["--labels", str(self.labels), "--exporters", "grid_numpy", "--images", "6"]
        common += ["--tier", "smoke", "--threads", "1", "--name", "t", "--quiet", "--no-report"]
        common += ["--results", str(self.folder / "results"), "--set", "calibration.images=2"]
        return [sys.executable, "-m", "harness", "run", *common, "--allow-tainted", *more]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*more),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    @property
    def run_folder(self) -> Path:
        (found,) = results.find_runs([self.folder / "results"])
        return found

    def records(self) -> dict[tuple[str, str], RunRecord]:
        """Records by runner and measure."""
        found = [
            decode(path.read_bytes(), RunRecord, path)
            for path in sorted(self.run_folder.glob("cells/*.json"))
        ]
        return {(record.cell.runner, record.cell.measure): record for record in found}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes that all tests share; everything else is each test's own."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture
def bench(tmp_path: Path, drawn: Path) -> Bench:
    return Bench(tmp_path, drawn)


def test_a_run_ends_with_a_record_for_every_cell(bench: Bench) -> None:
    done = bench.run("--runners", "grid_cpu")
    assert done.returncode == 0, done.stderr
    found = bench.records()
    assert set(found) == {("grid_cpu", "accuracy"), ("grid_cpu", "latency")}
    assert "2 of 2 cells ended as asked" in done.stdout or "tainted" in done.stdout
    scored, timed = found["grid_cpu", "accuracy"], found["grid_cpu", "latency"]
    for metric in ("accuracy.voc07_map", "accuracy.voc12_map", "accuracy.coco_map"):
        measured = scored.measurement(metric)
        assert measured is not None
        assert measured.conditions["images"] == 6
        assert measured.conditions["split"] == "val"
    sqnr = scored.measurement("parity.logits.sqnr_db")
    assert sqnr is not None
    assert sqnr.value is not None
    assert sqnr.value > 100
    inference = timed.measurement("latency.inference")
    assert inference is not None
    assert len(inference.samples) >= 12
    assert sum(inference.conditions["rounds"]) == len(inference.samples)
    for metric in ("load", "first", "preprocess", "postprocess", "end_to_end"):
        assert timed.measurement(f"latency.{metric}") is not None, metric
    assert timed.artifact_sha256 == scored.artifact_sha256
    assert len(timed.artifact_sha256 or "") == 64


def test_faults_stay_in_their_cells(bench: Bench) -> None:
    runners = "grid_crashing,grid_killed,grid_out_of_memory,grid_broken,grid_wrong,grid_absent"
    done = bench.run("--runners", f"{runners},grid_cpu", "--measures", "accuracy")
    assert done.returncode == 1
    found = {runner: record for (runner, _), record in bench.records().items()}
    assert found["grid_cpu"].state == "ok"
    expected = {
        "grid_crashing": ("crashed", "SIGSEGV"),
        "grid_killed": ("crashed", "SIGKILL, perhaps out of memory"),
        "grid_out_of_memory": ("crashed", "out of memory"),
        "grid_broken": ("crashed", "No module named 'harness.no_such_module'"),
        "grid_wrong": ("parity-failed", "logits have"),
        "grid_absent": ("unsupported", "no_such_framework is not installed: run  pip install"),
    }
    for runner, (state, said) in expected.items():
        record = found[runner]
        assert record.state == state, record
        assert said in (record.error or ""), record.error
        assert f"{state}: {record.cell_id}" in done.stdout
    assert "Traceback" in (found["grid_broken"].log or "")
    assert "Traceback" not in done.stdout + done.stderr


def test_a_hanging_cell_is_stopped_and_the_run_goes_on(bench: Bench) -> None:
    started = time.monotonic()
    done = bench.run(
        "--runners", "grid_hanging,grid_cpu", "--measures", "accuracy", "--set", "timeout_s=12"
    )
    assert time.monotonic() - started < 60
    assert done.returncode == 1
    found = bench.records()
    assert found["grid_hanging", "accuracy"].state == "timeout"
    assert found["grid_hanging", "accuracy"].error == "stopped after 12 s, its limit"
    assert found["grid_cpu", "accuracy"].state == "ok"


@pytest.mark.parametrize(
    ("fail", "state", "said"),
    [
        ("raise", "export-failed", "ValueError: the toolchain has a bug"),
        ("die", "export-failed", "SIGSEGV"),
    ],
)
def test_an_export_that_fails_fails_its_cells(
    bench: Bench, fail: str, state: str, said: str
) -> None:
    done = bench.run("--runners", "grid_cpu", "--exporters", f"grid_numpy:fail={fail}")
    assert done.returncode == 1
    for record in bench.records().values():
        assert record.state == state
        assert said in (record.error or "")


def test_the_same_command_again_measures_nothing_again(bench: Bench) -> None:
    bench.run("--runners", "grid_cpu")
    before = {path: path.stat().st_mtime_ns for path in bench.run_folder.glob("cells/*.json")}
    started = time.monotonic()
    done = bench.run("--runners", "grid_cpu")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 15
    after = {path: path.stat().st_mtime_ns for path in bench.run_folder.glob("cells/*.json")}
    assert after == before


def test_a_killed_run_goes_on_where_it_stopped(bench: Bench) -> None:
    arguments = bench.arguments("--runners", "grid_cpu,grid_hanging", "--set", "timeout_s=120")
    running = subprocess.Popen(arguments, cwd=ROOT, env=bench.environment, stdout=subprocess.PIPE)
    try:
        finished = _wait_for(bench.folder, "results/**/cells/*grid_cpu-accuracy*.json")
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    written = finished.stat().st_mtime_ns
    record = decode(finished.read_bytes(), RunRecord, finished)
    assert record.state == "ok"
    _wait_until_no_child_is_left(bench.folder)
    done = bench.run("--runners", "grid_cpu")
    assert done.returncode == 0, done.stderr
    assert finished.stat().st_mtime_ns == written
    assert bench.records()["grid_cpu", "latency"].state in ("ok", "tainted")


def test_a_damaged_export_is_made_again(bench: Bench) -> None:
    bench.run("--runners", "grid_cpu", "--measures", "accuracy")
    (folder,) = (bench.folder / "cache" / "exports").iterdir()
    before = artifacts.load(folder)
    (folder / "model.npz").write_bytes(b"other bytes")
    for path in bench.run_folder.glob("cells/*.json"):
        path.unlink()
    done = bench.run("--runners", "grid_cpu", "--measures", "accuracy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert artifacts.load(folder).fingerprint == before.fingerprint


def test_other_weights_make_another_export(bench: Bench) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    bench.run("--runners", "grid_cpu", "--measures", "accuracy")
    state: dict[str, torch.Tensor] = load_file(bench.weights)
    save_file({key: value * 1.5 for key, value in state.items()}, bench.weights)
    bench.run("--runners", "grid_cpu", "--measures", "accuracy")
    folders = list((bench.folder / "cache" / "exports").iterdir())
    assert len({artifacts.load(folder).weights_sha256 for folder in folders}) == 2
    plan = json.loads((bench.run_folder / "run.json").read_bytes())["plan"]
    assert len(plan) == 1


def test_the_plan_can_be_seen_without_running(bench: Bench) -> None:
    done = bench.run("--runners", "grid_cpu", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [cell["cell"]["measure"] for cell in plan["cells"]] == ["accuracy", "latency"]
    assert plan["estimate_s"] > 0
    assert not (bench.folder / "results").exists()


def test_a_plan_with_a_cell_that_nothing_can_run_says_so_by_its_exit_code(bench: Bench) -> None:
    done = bench.run("--runners", "litert_cpu", "--dry-run")
    assert done.returncode == 1, done.stderr
    assert "unsupported: litert_cpu runs tflite, not" in done.stdout


def test_an_artifact_alone_is_scored_timed_and_checked(bench: Bench) -> None:
    bench.run("--runners", "grid_cpu", "--measures", "accuracy")
    (folder,) = (bench.folder / "cache" / "exports").iterdir()
    for command in ("eval", "latency", "parity"):
        done = _artifact_command(bench, command, folder)
        assert done.returncode == 0, done.stderr
        (record,) = json.loads(done.stdout)
        metrics = {measurement["metric"] for measurement in record["measurements"]}
        assert "parity.logits.sqnr_db" in metrics
        assert ("latency.inference" in metrics) == (command == "latency")
        assert ("accuracy.coco_map" in metrics) == (command == "eval")


def test_the_judge_confirms_our_coco_figures(bench: Bench) -> None:
    done = bench.run("--runners", "grid_cpu", "--measures", "accuracy", "--audit")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("zero-byte image", "is empty (0 bytes)"),
        ("truncated image", "cannot be read"),
        ("impossible box", "000001.xml"),
    ],
)
def test_bad_data_is_its_cell_s_state(bench: Bench, damage: str, said: str) -> None:
    from harness.datasets import open_dataset
    from harness.datasets.writers import write_voc

    folder = write_voc(open_dataset("shapes:val", limit=3), bench.folder / "data")
    image = sorted(folder.glob("JPEGImages/*.jpg"))[1]
    annotation = sorted(folder.glob("Annotations/*.xml"))[1]
    if damage == "zero-byte image":
        image.write_bytes(b"")
    elif damage == "truncated image":
        image.write_bytes(image.read_bytes()[:200])
    else:
        text = annotation.read_text()
        start, end = text.index("<xmax>"), text.index("</xmax>")
        annotation.write_text(f"{text[:start]}<xmax>-5{text[end:]}")
        said = annotation.name
    done = bench.run("--runners", "grid_cpu", "--measures", "accuracy", "--data", f"voc:{folder}")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    record = bench.records()["grid_cpu", "accuracy"]
    assert record.state == "crashed"
    assert said in (record.error or "")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncated", "weights.safetensors"),
        ("pickle", "weights.pth"),
        ("other model", "weights.safetensors"),
    ],
)
def test_a_bad_checkpoint_is_its_cells_state(bench: Bench, damage: str, said: str) -> None:
    import torch
    from safetensors.torch import save_file

    path = bench.folder / said
    if damage == "truncated":
        path.write_bytes(bench.weights.read_bytes()[:100])
    elif damage == "pickle":
        torch.save({"weights": Path("not a tensor")}, path)
    else:
        save_file({"other.weight": torch.zeros(3)}, path)
    done = bench.run("--runners", "grid_cpu", "--measures", "accuracy", "--weights", str(path))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    record = bench.records()["grid_cpu", "accuracy"]
    assert record.state == "export-failed"
    assert said in (record.error or "")
    if damage == "other model":
        assert "other.weight" in (record.error or "")


def test_an_artifact_that_was_tampered_with_is_refused(bench: Bench) -> None:
    bench.run("--runners", "grid_cpu", "--measures", "accuracy")
    (folder,) = (bench.folder / "cache" / "exports").iterdir()
    np.save(folder / "priors.npy", np.zeros((64, 4), np.float32))
    done = _artifact_command(bench, "eval", folder)
    assert done.returncode == 2
    assert "priors.npy has SHA-256" in done.stderr


def _artifact_command(
    bench: Bench, command: str, folder: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    options = ["--plugin", str(PLUGIN), "--runners", "grid_cpu", "--images", "4", "--json"]
    options += ["--tier", "smoke", "--threads", "1", "--quiet", "--allow-tainted"]
    options += ["--results", str(bench.folder / f"results-{command}")]
    return subprocess.run(
        [sys.executable, "-m", "harness", command, str(folder), *options, *more],
        cwd=ROOT,
        env=bench.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _wait_for(folder: Path, pattern: str, seconds: float = 90) -> Path:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := sorted(folder.glob(pattern)):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"nothing matched {pattern} in {seconds} s")


def _wait_until_no_child_is_left(folder: Path) -> None:
    """Children die with their parent: none may still work on this folder."""
    import psutil

    def left() -> list[Any]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "harness.worker" in words and any(str(folder) in word for word in words):
                found.append(process)
        return found

    deadline = time.monotonic() + 10
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left() == []
