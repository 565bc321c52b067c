"""The command line: fast help, plain errors, exit codes, JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli import main

ROOT = Path(__file__).resolve().parents[1]
HELP_SECONDS = 0.3
FEW = ("--exporters", "onnx_float", "--images", "2", "--set", "calibration.images=1")
"""A matrix of few pictures: what is looked at here happens before the first cell."""


def detbench(
    *arguments: str, cache: Path | None = None, largest_file: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a child; ``largest_file`` bytes stand for a full disk."""

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    environment = {**os.environ} | ({"DETBENCH_CACHE": str(cache)} if cache else {})
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=limit,
    )


class Said(NamedTuple):
    """How a command ended in this process, where it needs none of its own."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*arguments: str) -> Said:
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse, after help
            code = int(ended.code or 0)
        return Said(code, *capsys.readouterr())

    return run


def test_help_is_fast() -> None:
    """CPU time of the process, the best of five: other work on the machine must not decide."""
    spent = []
    for _ in range(5):
        before = os.times()
        assert detbench("--help").returncode == 0
        after = os.times()
        spent.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    assert min(spent) < HELP_SECONDS


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "export",
        "eval",
        "latency",
        "parity",
        "adopt",
        "report",
        "list",
        "show",
        "fetch",
        "train",
        "doctor",
    ],
)
def test_every_command_explains_itself(command: str, ask: Callable[..., Said]) -> None:
    done = ask(command, "--help")
    assert done.returncode == 0
    assert f"usage: detbench {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--models", "mb2_ssd_light"], "unknown model 'mb2_ssd_light': did you mean"),
        (["run", "--exporters", "tflite_int9"], "unknown exporter 'tflite_int9': did you mean"),
        (["run", "--runners", "litert_gpu"], "unknown runner 'litert_gpu': did you mean"),
        (["run", "--data", "shape:val"], "unknown data set 'shape:val': did you mean 'shapes'"),
        (["run", "--data", "shapes:test"], "shapes has no split 'test'"),
        (["run", "--data", "voc:/nowhere"], "/nowhere does not exist"),
        (["run", "--models", "mb2_ssd_lite:widht=1"], "no option 'widht': did you mean 'width'"),
        (["run", "--exporters", "tflite_int8:oi=int8"], "no option 'oi': did you mean 'io'"),
        (["run", "--weights", "/nowhere.pth"], "checkpoint /nowhere.pth does not exist"),
        (["run", "--set", "imges=3"], "unknown field `imges`"),
        (["run", "/nowhere.yaml"], "matrix /nowhere.yaml cannot be read"),
        (["run", "--threads", "0"], "'threads' of the command line is 0, expected at least 1"),
        (["eval", "/nowhere"], "/nowhere is not an artifact"),
        (["report", "/nowhere"], "results folder /nowhere does not exist"),
        (["show", "mb3"], "unknown model 'mb3'"),
        (["adopt", "/nowhere.onnx"], "/nowhere.onnx does not exist"),
        (["run", "--models", "/nowhere.yaml"], "model /nowhere.yaml cannot be read"),
        (["list", "runners", "--profile"], "only models have a profile"),
        (["train", "mb2_ssd_lite"], "no folder to write to: give one with -o"),
        (["train", "-o", "/nowhere"], "no model to train: name one"),
        (["list", "models", "--plugin", "/nowhere.py"], "/nowhere.py is not a Python file"),
        (["export", "mb2_ssd_lite", "onnx_float", "-o", __file__], "is a file: give a new folder"),
        pytest.param(
            ["train", "mb2_ssd_lite", "-o", __file__],
            "test_cli.py cannot be written (File exists): choose another folder",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_wrong_requests_end_in_one_sentence(
    arguments: list[str], said: str, ask: Callable[..., Said]
) -> None:
    done = ask(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_runner_that_cannot_run_an_artifact_is_unsupported_before_any_work(
    tmp_path: Path,
) -> None:
    before = os.times()
    arguments = [*FEW[2:], "--exporters", "tflite_float", "--runners", "tvm_cpu", "--no-report"]
    done = detbench("run", *arguments, "--results", str(tmp_path), cache=tmp_path / "cache")
    assert done.returncode == 1, done.stderr
    assert "unsupported" in done.stdout
    assert "tvm_cpu runs tvm, not tflite" in done.stdout
    assert not list((tmp_path / "cache").glob("exports/*"))
    after = os.times()
    assert after.children_user - before.children_user < 60  # CPU time: others' work is not counted


@pytest.mark.slow
def test_results_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    done = detbench("run", *FEW, "--results", str(blocked / "results"), cache=tmp_path / "cache")
    assert done.returncode == 2
    assert f"{blocked / 'results'}" in done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    done = detbench("run", *FEW, "--results", "/proc/detbench", cache=tmp_path / "cache")
    assert done.returncode == 2
    assert "/proc/detbench" in done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    list(_warm(tmp_path / "cache"))
    done = detbench(
        "run", *FEW, "--results", str(tmp_path / "r"), cache=tmp_path / "cache", largest_file=16
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "r").rglob("*") if path.is_file()] == []


def _warm(cache: Path) -> list[str]:
    """Draw the calibration images into the cache, so that only the results meet the full disk."""
    done = detbench("run", *FEW, "--dry-run", cache=cache)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", ["models", "exporters", "runners", "datasets", "weights"])
def test_lists_are_json_where_asked(kind: str, ask: Callable[..., Said]) -> None:
    done = ask("list", kind, "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_doctor_reports_every_plugin_as_json() -> None:
    done = detbench("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(done.stdout)}
    assert {"python", "runtimes", "machine", "C++ compiler"} <= set(checks)
    assert "runner litert_cpu" in checks


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m harness list exporters --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
