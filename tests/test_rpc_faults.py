"""``detbench run`` over a tracker with a board that dies, hangs or answers wrong: it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from harness import artifacts, results
from harness.datasets.shapes import LABELS
from harness.interfaces import MODELS
from harness.records import Artifact, RunRecord, decode, encode
from harness.registry import load_file
from tests import board
from tests.test_runners_tvm_rpc import ROOT, free_port, started

pytest.importorskip("tvm", reason="the runtime under test")
torch = pytest.importorskip("torch", reason="makes the module that is run here")
pytestmark = pytest.mark.slow

PLUGIN = ROOT / "tests" / "plugins" / "grid.py"
TIMEOUT_S = 30
EXPECTED: dict[board.Fault | None, tuple[tuple[str, ...], str]] = {
    None: (("ok", "tainted"), ""),  # tests do not choose what else the machine does
    "dies": (("crashed",), "lost the connection to loop@127.0.0.1"),
    "hangs": (("timeout",), f"stopped after {TIMEOUT_S} s"),
    "wrong values": (("parity-failed",), "logits have an SQNR of"),
    "garbage": (("crashed",), ""),  # TVM's client may end its process on it
}


def detbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def copies(folder: Path, count: int) -> list[Path]:
    """The artifact again and again, each with a library, and so a name, of its own."""
    found = [folder]
    for number in range(1, count):
        copy = folder.with_name(f"copy{number}")
        copy.mkdir()
        artifact = artifacts.load(folder)
        for entry in artifact.files:
            data = (folder / entry.path).read_bytes()
            tail = bytes([number]) if entry.role == "model" else b""
            (copy / entry.path).write_bytes(data + tail)
        files = artifacts.entries(copy, [e.path for e in artifact.files if e.role == "model"])
        other = msgspec.structs.replace(artifact, files=files, sha256=artifacts.model_digest(files))
        size = sum(entry.size_bytes for entry in files if entry.role == "model")
        other = msgspec.structs.replace(other, size_bytes=size)
        (copy / artifacts.MANIFEST).write_bytes(encode(other))
        found.append(copy)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Equal artifacts, one for each kind of board."""
    from safetensors.torch import save_file

    load_file(PLUGIN)
    folder = tmp_path_factory.mktemp("grid")
    save_file(MODELS.get("grid")(LABELS, seed=3).build().state_dict(), folder / "w.safetensors")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    asked = ["export", "grid", "tvm_dense", "--plugin", str(PLUGIN), "-o", str(folder / "grid")]
    asked += ["--weights", str(folder / "w.safetensors"), "--labels", str(folder / "labels.txt")]
    done = detbench(*asked)
    assert done.returncode == 0, done.stderr
    return copies(folder / "grid", len(EXPECTED))


def uploaded_as(folder: Path) -> bytes:
    """The name of an artifact's library on the board."""
    artifact: Artifact = artifacts.load(folder)
    return artifact.sha256[:16].encode()


def test_each_fault_ends_one_cell_and_the_run_goes_on(exported: list[Path], tmp_path: Path) -> None:
    faults = dict(zip(EXPECTED, exported, strict=True))
    names = {uploaded_as(folder): fault for fault, folder in faults.items() if fault}
    with (
        started("track", "--port", free_port()) as (serve, _),
        started("serve", "--port", free_port()) as (latency, _),
    ):
        host, _, tracker = serve.split()[4].partition(":")
        _, _, port = latency.split()[-1].partition(":")
        where, server = (host, int(tracker)), ("127.0.0.1", int(port))
        with board.offering(where, "loop", server, names) as relay:
            asked = [word for folder in exported for word in ("--artifact", str(folder))]
            asked += ["--runners", "tvm_rpc", "--target", f"loop@{host}:{tracker}"]
            asked += ["--measures", "latency", "--threads", "1", "--tier", "smoke", "--quiet"]
            asked += ["--set", f"timeout_s={TIMEOUT_S}", "--set", "latency.rounds=1"]
            asked += ["--results", str(tmp_path), "--no-report", "--allow-tainted"]
            done = detbench("run", *asked)
    assert done.returncode == 1, done.stdout + done.stderr
    assert sorted(relay.failed) == sorted(names.values())
    (run,) = results.find_runs([tmp_path])
    records = {
        record.artifact_sha256: record
        for path in run.glob("cells/*.json")
        for record in [decode(path.read_bytes(), RunRecord, path)]
    }
    for fault, folder in faults.items():
        record = records[artifacts.load(folder).sha256]
        states, said = EXPECTED[fault]
        assert record.state in states, (fault, record.error)
        assert said in (record.error or "")
        timed = record.measurement("latency.on_device")
        assert (timed is not None) == (fault is None)
