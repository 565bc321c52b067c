"""Modules built for a Raspberry Pi 4 and a TFLite int8 file, run as AArch64 under user-mode QEMU.

``tox run -e arm64`` makes the userland (see `benchmarks/arm64.py`) and runs these. What is compared
is the shipped network's answers to its golden images, on this machine and emulated.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import arm64
from harness.records import RunRecord, decode
from tests.answers import answers
from tests.test_runners_tvm_rpc import free_port, started

pytest.importorskip("torch", reason="networks are exported here")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "DETBENCH_ARM64" not in os.environ,
        reason="downloads an AArch64 userland to the folder DETBENCH_ARM64: tox run -e arm64",
    ),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with x86-64"),
]
ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "tvm_dense": "etinynet_ssd_lite:width=0.35",
    "tvm_sparse": "mb2_ssd_lite",  # it has maps that are large enough for fused strips
    "tflite_int8": "mb2_ssd_lite",
}
Exported = Callable[[str], Path]
CROSS = "aarch64-linux-gnu-g++"
PATIENCE_S = 1200
EMULATOR = "qemu-aarch64"
RELATIVE = 1e-4
"""Between float modules that add up in another order."""
STEPS = 1
"""Between int8 kernels that round products differently: so many of the output's steps."""


@pytest.fixture(scope="session")
def python() -> Path:
    """Of the emulated userland."""
    try:
        return arm64.prepare(Path(os.environ["DETBENCH_ARM64"]))
    except arm64.Unavailable as error:
        pytest.skip(str(error))


def detbench(python: Path | str, *arguments: str, code: int = 0) -> str:
    """Run a command with a Python, answer what it printed."""
    done = subprocess.run(
        [str(python), "-m", "harness", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The folder of an artifact by its name, ``tvm_dense-rpi4``; each is exported once."""
    if shutil.which(CROSS) is None:
        pytest.skip(f"{CROSS} is not installed: install the package g++-aarch64-linux-gnu")
    folder = tmp_path_factory.mktemp("artifacts")

    def export(name: str) -> Path:
        if not (folder / name).exists():
            exporter, _, cpu = name.partition("-")
            how = [f"{exporter}:target={cpu}", "--recipe", "prune:0.9"] if cpu else [exporter]
            asked = [MODELS[exporter], *how, "-o", str(folder / name)]
            detbench(sys.executable, "export", *asked, "--set", f"timeout_s={PATIENCE_S}")
        return folder / name

    return export


def emulated_answers(
    python: Path, folder: Path, runner: str, out: Path
) -> list[NDArray[np.float64]]:
    """What `answers` gives in the emulated userland."""
    command = [str(python), "-m", "tests.answers", str(folder), runner, str(out)]
    subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S, check=True)
    with np.load(out) as found:
        return [found[name] for name in ("logits", "offsets")]


def only_record(folder: Path) -> RunRecord:
    (path,) = folder.glob("*/*/cells/*.json")
    return decode(path.read_bytes(), RunRecord, path)


@pytest.mark.parametrize("exporter", ["tvm_dense", "tvm_sparse"])
def test_float_modules_answer_the_same_on_both(
    exporter: str, python: Path, exported: Exported, tmp_path: Path
) -> None:
    here = answers(exported(f"{exporter}-native"), "tvm_cpu")
    there = emulated_answers(python, exported(f"{exporter}-rpi4"), "tvm_cpu", tmp_path / "a.npz")
    for head, one, other in zip(("logits", "offsets"), here, there, strict=True):
        off = np.abs(one - other).max() / np.abs(one).max()
        print(f"{exporter} {head}: x86-64 and AArch64 differ by {off:.2g} of the largest value")
        assert off <= RELATIVE


def test_the_same_int8_file_answers_the_same_on_both(
    python: Path, exported: Exported, tmp_path: Path
) -> None:
    here = answers(exported("tflite_int8"), "litert_cpu")
    there = emulated_answers(python, exported("tflite_int8"), "litert_cpu", tmp_path / "a.npz")
    for head, one, other in zip(("logits", "offsets"), here, there, strict=True):
        off = np.abs(one - other)
        print(f"tflite_int8 {head}: {np.mean(off == 0):.2%} equal, at most {off.max():.3g} apart")
        assert off.max() <= STEPS * np.diff(np.unique(one)).min()


@pytest.mark.parametrize("name", ["tvm_dense-rpi4", "tvm_sparse-rpi4", "tflite_int8"])
def test_records_are_marked_and_hold_no_times(
    name: str, python: Path, exported: Exported, tmp_path: Path
) -> None:
    where = ["--results", str(tmp_path / "parity"), "--threads", "1", "--quiet"]
    detbench(python, "parity", str(exported(name)), *where)
    record = only_record(tmp_path / "parity")
    assert (record.state, record.emulated) == ("ok", EMULATOR)
    assert all(item.metric.startswith("parity.") for item in record.measurements)
    where = ["--results", str(tmp_path / "time"), "--threads", "1", "--quiet"]
    detbench(python, "latency", str(exported(name)), *where, "--tier", "smoke", code=1)
    record = only_record(tmp_path / "time")
    assert record.state == "unsupported"
    assert f"emulated by {EMULATOR}" in str(record.error)
    assert not record.measurements


def test_a_board_that_is_emulated_says_so(python: Path, exported: Exported, tmp_path: Path) -> None:
    with started("serve", "--port", free_port(), python=str(python)) as (latency, _):
        where = ["--results", str(tmp_path), "--threads", "1", "--quiet"]
        where += ["--runners", "tvm_rpc", "--target", latency.split()[-1]]
        detbench(sys.executable, "parity", str(exported("tvm_sparse-rpi4")), *where)
    record = only_record(tmp_path)
    assert (record.state, record.emulated) == ("ok", EMULATOR)
    assert record.versions["board"] == f"aarch64 emulated by {EMULATOR}, aarch64"
