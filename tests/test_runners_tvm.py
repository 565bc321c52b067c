"""TVM runner: what it loads, with how many threads, what it refuses before it can crash."""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import harness.cpu_flags
from harness import artifacts, worker
from harness.cpu_flags import cpu_flags
from harness.errors import ArtifactDamaged, DetbenchError, Unsupported
from harness.interfaces import RUNNERS, RunOptions
from harness.records import Artifact, ModelSpec, encode
from harness.tasks import MeasureTask
from runners import _tvm_fit, tvm_cpu

tvm = pytest.importorskip("tvm", reason="the runtime under test")
pytest.importorskip("torch", reason="makes the module that is run here")

MakeArtifact = Callable[..., tuple[Artifact, Path]]
Images = NDArray[np.float32]
ROOT = Path(__file__).parents[1]

IN_A_CHILD = """
import sys
from pathlib import Path
import numpy as np
from harness.interfaces import RUNNERS, RunOptions
from harness.records import Artifact, decode
folder = Path(sys.argv[1])
artifact = decode(Path(sys.argv[2]).read_bytes(), Artifact, sys.argv[2])
threads = int(sys.argv[3])
with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=threads)) as session:
    session.run(np.zeros((1, 3, 32, 32), np.float32))
    import tvm_ffi
    print(tvm_ffi.get_global_func("runtime.NumThreads")())
    from tvm.base import _LOADED_LIBS
print(*sorted(_LOADED_LIBS), "torch" in sys.modules)
"""


@pytest.fixture
def made(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> tuple[Artifact, Path]:
    return export_artifact("tvm_dense", tiny_spec)


def copy_with(made: tuple[Artifact, Path], folder: Path, data: bytes) -> tuple[Artifact, Path]:
    """The artifact with other bytes for a library."""
    (folder / "model.so").write_bytes(data)
    return made[0], folder


def refusal(made: tuple[Artifact, Path], kind: type[DetbenchError] = ArtifactDamaged) -> str:
    with pytest.raises(kind) as caught:
        RUNNERS.get("tvm_cpu")().open(*made, RunOptions(threads=1))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_any_alignment_gives_the_same_answer(
    made: tuple[Artifact, Path], tiny_images: Images
) -> None:
    room = np.zeros(3 * 32 * 32 + 64, np.float32)
    first = (-room.ctypes.data // 4) % 16
    with RUNNERS.get("tvm_cpu")().open(*made, RunOptions(threads=1)) as session:
        answers = []
        for shift in (0, 1, 3):  # aligned to 64 bytes, then not
            given = room[first + shift :][: 3 * 32 * 32].reshape(1, 3, 32, 32)
            given[...] = tiny_images[:1]
            assert (given.ctypes.data % 64 == 0) == (shift == 0)
            answers.append(session.run(given))
        reversed_channels = tiny_images[:1, ::-1]
        assert not reversed_channels.flags.c_contiguous
        other = session.run(reversed_channels)
        again = session.run(np.ascontiguousarray(reversed_channels))
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.logits, answers[0].logits)
        np.testing.assert_array_equal(answer.offsets, answers[0].offsets)
    np.testing.assert_array_equal(other.logits, again.logits)
    assert not np.array_equal(other.logits, answers[0].logits)


def test_an_answer_outlives_the_next_run(made: tuple[Artifact, Path], tiny_images: Images) -> None:
    with RUNNERS.get("tvm_cpu")().open(*made, RunOptions(threads=1)) as session:
        first = session.run(tiny_images[:1])
        kept = first.logits.copy(), first.offsets.copy()
        for image in tiny_images[1:]:
            session.run(image[None])
    np.testing.assert_array_equal(first.logits, kept[0])
    np.testing.assert_array_equal(first.offsets, kept[1])
    assert session.versions == {"apache-tvm": tvm.__version__}


@pytest.mark.parametrize("threads", [1, 2])
def test_it_uses_the_threads_asked_for_and_the_runtime_alone(
    made: tuple[Artifact, Path], tmp_path: Path, threads: int
) -> None:
    manifest = tmp_path / "artifact.json"
    manifest.write_bytes(encode(made[0]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_A_CHILD, made[1], manifest, str(threads)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(threads), "tvm_runtime", "False"]


def test_more_threads_than_the_pool_has_are_refused(
    made: tuple[Artifact, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "1")  # restored afterwards: opening sets it
    with pytest.raises(Unsupported, match=r"TVM's thread pool takes \d+ threads, not 999"):
        RUNNERS.get("tvm_cpu")().open(*made, RunOptions(threads=999))


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_library_is_refused(
    made: tuple[Artifact, Path], tmp_path: Path, part: float
) -> None:
    whole = (made[1] / "model.so").read_bytes()
    message = refusal(copy_with(made, tmp_path, whole[: int(len(whole) * part)]))
    assert "model.so" in message
    assert "export the model again" in message


def test_other_bytes_are_refused(made: tuple[Artifact, Path], tmp_path: Path) -> None:
    assert "not a Linux shared library" in refusal(copy_with(made, tmp_path, b"PK\x03\x04" * 99))


@pytest.mark.parametrize(("machine", "name"), [(40, "arm"), (183, "aarch64"), (62, "x86_64")])
def test_another_machines_library_is_refused(
    made: tuple[Artifact, Path], tmp_path: Path, machine: int, name: str
) -> None:
    if name == platform.machine():
        machine, name = 243, "riscv64"
    library = bytearray((made[1] / "model.so").read_bytes())
    struct.pack_into("<H", library, 18, machine)
    message = refusal(copy_with(made, tmp_path, bytes(library)), Unsupported)
    assert f"was built for {name} and this machine is {platform.machine()}" in message


def test_a_32_bit_library_is_refused(made: tuple[Artifact, Path], tmp_path: Path) -> None:
    library = bytearray((made[1] / "model.so").read_bytes())
    library[4] = 1
    struct.pack_into("<H", library, 18, 3)
    message = refusal(copy_with(made, tmp_path, bytes(library)), Unsupported)
    assert f"was built for 32-bit i386 and this machine is {platform.machine()}" in message


def test_a_library_that_is_no_module_is_refused(
    made: tuple[Artifact, Path], tmp_path: Path
) -> None:
    other = getattr(zlib, "__file__", None)
    if other is None:
        pytest.skip("this Python has no extension module to try")
    message = refusal(copy_with(made, tmp_path, Path(other).read_bytes()))
    assert "is not a module that TVM can load" in message


def test_another_version_of_tvm_is_named(made: tuple[Artifact, Path]) -> None:
    artifact, folder = made
    older = msgspec.structs.replace(artifact, toolchain={**artifact.toolchain, "apache-tvm": "0.1"})
    message = refusal((older, folder), Unsupported)
    assert f"was built by TVM 0.1 and this machine has {tvm.__version__}" in message
    assert "apache-tvm==0.1" in message


@pytest.mark.parametrize("flags", [{"avx", "avx2"}, {"fp", "asimd"}])
def test_missing_instructions_are_named(
    flags: set[str], made: tuple[Artifact, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, folder = made
    toolchain = {"target": "llvm -mcpu=future", "cpu-features": f"{min(flags)} avx4096"}
    newer = msgspec.structs.replace(artifact, toolchain=toolchain)
    monkeypatch.setattr(tvm_cpu, "cpu_flags", lambda: frozenset(flags))
    message = refusal((newer, folder), Unsupported)
    assert "built for llvm -mcpu=future and uses avx4096, which this machine (" in message
    monkeypatch.setattr(tvm_cpu, "cpu_flags", frozenset)  # a system that does not tell
    RUNNERS.get("tvm_cpu")().open(newer, folder, RunOptions(threads=1)).close()


def test_the_flags_of_a_processor_are_read_in_both_spellings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(harness.cpu_flags, "CPUINFO", tmp_path / "cpuinfo")
    assert cpu_flags() == frozenset()
    for text in ("vendor : x\nflags\t\t: fpu avx2\nflags : no\n", "Features\t: fpu avx2\n"):
        (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
        assert cpu_flags() == {"fpu", "avx2"}


def test_a_module_of_elsewhere_ends_its_cell_as_unsupported(
    made: tuple[Artifact, Path], measure_task: MeasureTask, tmp_path: Path
) -> None:
    artifact, folder = made
    cell = msgspec.structs.replace(measure_task.cell, runner="tvm_cpu", measure="parity")
    task = msgspec.structs.replace(measure_task, cell=cell, folder=str(tmp_path))
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    library = bytearray((folder / "model.so").read_bytes())
    struct.pack_into("<H", library, 18, 243)
    for data, toolchain, said in (
        (bytes(library), artifact.toolchain, "was built for riscv64 and this machine is"),
        (
            (folder / "model.so").read_bytes(),
            {**artifact.toolchain, "apache-tvm": "0.1"},
            "was built by TVM 0.1 and this machine has",
        ),
    ):
        (tmp_path / "model.so").write_bytes(data)
        files = artifacts.entries(tmp_path, ["model.so"])
        changed = msgspec.structs.replace(
            artifact, toolchain=toolchain, files=files, sha256=artifacts.model_digest(files)
        )
        (tmp_path / artifacts.MANIFEST).write_bytes(encode(changed))
        result = worker.perform(task)
        assert result.state == "unsupported", result.error
        assert said in str(result.error)


def test_the_header_of_a_good_library_passes(made: tuple[Artifact, Path]) -> None:
    _tvm_fit.check_library(made[1] / "model.so", tvm_cpu.here("any"))
