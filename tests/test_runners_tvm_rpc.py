"""TVM over the network: a real server and tracker on loopback, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.boards import Address, address
from harness.config import load
from harness.errors import CellCrashed, Unsupported
from harness.interfaces import RUNNERS, RunOptions
from harness.plan import make_plan
from harness.records import Artifact, ModelSpec
from runners import tvm_rpc

tvm = pytest.importorskip("tvm", reason="the runtime under test")
torch = pytest.importorskip("torch", reason="makes the module that is run here")

MakeArtifact = Callable[..., tuple[Artifact, Path]]
ROOT = Path(__file__).parents[1]
PATIENCE_S = 300


@contextlib.contextmanager
def started(
    *arguments: str, python: str = sys.executable
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``detbench device …`` until the block ends: the command that it prints, and the process."""
    process = subprocess.Popen(
        [python, "-m", "harness", "device", *arguments, "--hours", "0.1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(PATIENCE_S, lambda: end(process))
    timer.start()
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[-1].startswith("detbench "), lines
        yield lines[-1].strip(), process
    finally:
        timer.cancel()
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def options(target: str) -> RunOptions:
    return RunOptions(threads=1, target=target)


@pytest.fixture
def made(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> tuple[Artifact, Path]:
    return export_artifact("tvm_dense", tiny_spec)


@pytest.mark.slow
def test_a_board_at_a_tracker_answers_and_times(
    made: tuple[Artifact, Path], tiny_spec: ModelSpec, tiny_images: NDArray[np.float32]
) -> None:
    artifact, folder = made
    with torch.no_grad():
        expected = tiny_spec.build()(torch.from_numpy(tiny_images[:1]))
    with started("track", "--port", free_port()) as (serve, _):
        tracker = serve.split()[4]
        with started("serve", "--port", free_port(), "--tracker", tracker, "--key", "loop") as (
            latency,
            server,
        ):
            target = latency.split()[-1]
            assert target == f"loop@{tracker}"
            runner = RUNNERS.get("tvm_rpc")()
            for _ in range(2):  # a board serves one client after the other
                with runner.open(artifact, folder, options(target)) as session:
                    found = session.run(tiny_images[:1])
                    samples = session.time_on_device(tiny_images[:1], 5)
                np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
                assert len(samples) == 5
                assert all(1e3 < nanoseconds < 1e9 for nanoseconds in samples)
            with pytest.raises(CellCrashed, match="has no board 'rpi9', only loop"):
                runner.open(artifact, folder, options(f"rpi9@{tracker}"))
            wrong = msgspec.structs.replace(artifact, toolchain={"apache-tvm": "0.1"})
            with pytest.raises(Unsupported, match=rf"built by TVM 0\.1 and loop@{tracker} has"):
                runner.open(wrong, folder, options(target))
            session = runner.open(artifact, folder, options(target))
            end(server)
            with pytest.raises(CellCrashed, match=f"lost the connection to loop@{tracker}"):
                session.run(tiny_images[:1])


@pytest.mark.slow
def test_a_module_that_a_board_cannot_run_is_named(
    made: tuple[Artifact, Path], tmp_path: Path
) -> None:
    artifact, folder = made
    data = bytearray((folder / "model.so").read_bytes())
    data[18:20] = (183 if data[18] != 183 else 62).to_bytes(2, "little")  # e_machine
    (tmp_path / "model.so").write_bytes(data)
    foreign = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    toolchain = {**artifact.toolchain, "cpu-features": "avx4096"}
    future = msgspec.structs.replace(artifact, toolchain=toolchain)
    runner = RUNNERS.get("tvm_rpc")()
    with started("serve", "--port", free_port()) as (latency, _):
        where = latency.split()[-1]
        said = f"was built for {foreign} and {where} is {platform.machine()}"
        with pytest.raises(Unsupported, match=said):
            runner.open(artifact, tmp_path, options(where))
        with pytest.raises(Unsupported, match=rf"uses avx4096, which {where} \(.+\) lacks"):
            runner.open(future, folder, options(where))


@pytest.mark.slow
def test_a_board_that_does_not_introduce_itself_says_why_it_cannot_load(
    made: tuple[Artifact, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, folder = made
    data = bytearray((folder / "model.so").read_bytes())
    data[18:20] = (183 if data[18] != 183 else 62).to_bytes(2, "little")  # e_machine
    (tmp_path / "model.so").write_bytes(data)
    monkeypatch.setattr(tvm_rpc.RpcSession, "_introduction", lambda _: {})
    with (
        started("serve", "--port", free_port()) as (latency, _),
        pytest.raises(Unsupported, match=r"cannot load tiny/.*built for llvm .* by TVM"),
    ):
        RUNNERS.get("tvm_rpc")().open(artifact, tmp_path, options(latency.split()[-1]))


def test_nobody_at_the_address_is_one_sentence(made: tuple[Artifact, Path]) -> None:
    artifact, folder = made
    port = free_port()
    with pytest.raises(CellCrashed, match=rf"no RPC server at 127\.0\.0\.1:{port}"):
        RUNNERS.get("tvm_rpc")().open(artifact, folder, options(f"127.0.0.1:{port}"))


def test_another_service_at_the_address_is_named(made: tuple[Artifact, Path]) -> None:
    artifact, folder = made
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        target = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(CellCrashed, match="is no RPC server of this TVM"):
            RUNNERS.get("tvm_rpc")().open(artifact, folder, options(target))
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rpi4@tracker:9190", ("tracker", 9190, "rpi4")),
        ("192.168.1.5:9090", ("192.168.1.5", 9090, None)),
        ("cpu", None),
        ("board:0", None),
        ("board:70000", None),
        ("@board:9090", None),
    ],
)
def test_addresses(text: str, found: tuple[str, int, str | None] | None) -> None:
    assert address(text) == (None if found is None else Address(*found))


def test_a_remote_runner_is_planned_only_with_its_target() -> None:
    asked = {"exporters": ["tvm_dense"], "threads": [1], "measures": ["latency"]}
    here = make_plan(load(None, asked)).cells
    assert {planned.cell.runner for planned in here} == {"tvm_cpu"}
    there = make_plan(load(None, {**asked, "targets": ["rpi4@tracker:9190"]})).cells
    assert [(p.cell.runner, p.cell.target) for p in there] == [("tvm_rpc", "rpi4@tracker:9190")]
    named = make_plan(load(None, {**asked, "runners": ["tvm_rpc"]})).cells
    assert "give --target HOST:PORT" in str(named[0].unsupported)
