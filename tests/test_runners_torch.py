"""PyTorch on the CPU: what it computes, how many threads, what it refuses, what it imports."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import ArtifactDamaged, BadInput, Unsupported
from harness.interfaces import RUNNERS, RunOptions, Session
from harness.records import Artifact, ModelSpec, encode

pytest.importorskip("torch", reason="the runtime under test")

from runners import torch_cpu

Images = NDArray[np.float32]
Calibration = Callable[[], Iterator[Images]]
MakeArtifact = Callable[..., tuple[Artifact, Path]]

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler"
)

ALONE = """
import os, sys
import numpy as np
from pathlib import Path
from harness.interfaces import RUNNERS, RunOptions
from harness.records import Artifact, decode

folder, threads = Path(sys.argv[1]), int(sys.argv[2])
artifact = decode((folder / "manifest.json").read_bytes(), Artifact, folder)
with RUNNERS.get("torch_cpu")().open(artifact, folder, RunOptions(threads=threads)) as session:
    opened = len(os.listdir("/proc/self/task"))  # torch has an idle pool besides OpenMP's
    answer = session.run(np.load(sys.argv[3]))
    print(len(os.listdir("/proc/self/task")) - opened)
print([name for name in ("torchao", "onnx", "tensorflow", "models") if name in sys.modules])
np.savez(sys.argv[4], *answer)
"""


def run_alone(
    exported: tuple[Artifact, Path], images: Images, scratch: Path, *, threads: int
) -> tuple[int, list[NDArray[np.float32]]]:
    """Run in a process of its own: number of threads that the call started, logits, offsets."""
    artifact, folder = exported
    (folder / "manifest.json").write_bytes(encode(artifact))
    np.save(scratch / "images.npy", images)
    answer = subprocess.run(
        [
            *(sys.executable, "-c", ALONE, str(folder), str(threads)),
            *(str(scratch / "images.npy"), str(scratch / "answer.npz")),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    started, imported = answer.stdout.splitlines()
    assert imported == "[]"
    with np.load(scratch / "answer.npz") as heads:
        return int(started), [heads["arr_0"], heads["arr_1"]]


@pytest.fixture
def graph(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> tuple[Artifact, Path]:
    return export_artifact("torch_float", tiny_spec)


@pytest.fixture
def library(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> tuple[Artifact, Path]:
    return export_artifact("torch_float", tiny_spec, package="aoti")


def opened(exported: tuple[Artifact, Path], threads: int = 1) -> Session:
    return RUNNERS.get("torch_cpu")().open(*exported, RunOptions(threads=threads))


@pytest.mark.slow
def test_threads_of_a_graph_are_those_asked_for(
    graph: tuple[Artifact, Path], tiny_images: Images, tmp_path: Path
) -> None:
    none, answer = run_alone(graph, tiny_images[:1], tmp_path, threads=1)
    two, again = run_alone(graph, tiny_images[:1], tmp_path, threads=3)
    assert (none, two) == (0, 2)  # the caller's thread is the first
    assert np.allclose(answer[0], again[0], atol=1e-5)


@pytest.mark.slow
@needs_compiler
def test_threads_of_a_library_are_those_asked_for(
    library: tuple[Artifact, Path], tiny_images: Images, tmp_path: Path
) -> None:
    none, answer = run_alone(library, tiny_images[:1], tmp_path, threads=1)
    two, again = run_alone(library, tiny_images[:1], tmp_path, threads=3)
    assert (none, two) == (0, 2)  # the caller's thread is the first
    assert np.allclose(answer[0], again[0], atol=1e-5)


@pytest.mark.slow
def test_a_quantized_graph_runs_without_torchao(
    tiny_spec: ModelSpec,
    tiny_images: Images,
    tiny_calibration: Calibration,
    export_artifact: MakeArtifact,
    tmp_path: Path,
) -> None:
    exported = export_artifact("torch_int8", tiny_spec, tiny_calibration, package="export")
    _, (logits, offsets) = run_alone(exported, tiny_images[:1], tmp_path, threads=1)
    assert logits.shape == (1, 160, 5)
    assert offsets.shape == (1, 160, 4)


def test_answers_are_the_callers_own(graph: tuple[Artifact, Path], tiny_images: Images) -> None:
    with opened(graph) as session:
        first = session.run(tiny_images[:1])
        kept = first.logits.copy()
        second = session.run(tiny_images[1:2])
    assert np.array_equal(first.logits, kept)
    assert not np.array_equal(first.logits, second.logits)
    assert list(session.versions) == ["torch"]


@pytest.mark.parametrize("format", ["torch_export", "torch_aoti"])
@pytest.mark.parametrize("keep", [0, 1, 1000, 0.5])
def test_a_damaged_file_is_one_sentence(
    graph: tuple[Artifact, Path], tmp_path: Path, format: str, keep: float
) -> None:
    artifact, folder = graph
    data = (folder / "model.pt2").read_bytes()
    (tmp_path / "model.pt2").write_bytes(data[: int(keep if keep != 0.5 else len(data) / 2)])
    with pytest.raises(ArtifactDamaged, match=rf"cannot be loaded as {format} .* again$") as caught:
        opened((msgspec.structs.replace(artifact, format=format), tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(graph: tuple[Artifact, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactDamaged, match="export tiny again"):
        opened((graph[0], tmp_path))


def test_a_graph_is_no_library(graph: tuple[Artifact, Path]) -> None:
    artifact, folder = graph
    with pytest.raises(ArtifactDamaged, match="the archive holds no compiled model"):
        opened((msgspec.structs.replace(artifact, format="torch_aoti"), folder))


@pytest.mark.parametrize(
    ("machine", "isa", "lacks"),
    [
        ("mars", "AVX512", "mars"),
        (platform.machine(), "AVX512 AVX512_VNNI AMX_TILE", "AVX512_VNNI, AMX_TILE"),
    ],
)
def test_a_library_for_another_cpu_is_refused_before_it_runs(
    graph: tuple[Artifact, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    isa: str,
    lacks: str,
) -> None:
    monkeypatch.setattr(torch_cpu, "cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as package:
        metadata = {"AOTI_MACHINE": machine, "AOTI_CPU_ISA": isa}
        package.writestr("m/data/aotinductor/model/x.wrapper_metadata.json", json.dumps(metadata))
    artifact = msgspec.structs.replace(graph[0], format="torch_aoti")
    with pytest.raises(Unsupported, match=rf"a CPU with {lacks}, which this one is not"):
        opened((artifact, tmp_path))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 32, 32), np.float64),
        np.zeros((1, 3, 30, 32), np.float32),
        np.zeros((2, 3, 32, 32), np.float32),
    ],
)
def test_other_images_are_refused(
    graph: tuple[Artifact, Path], images: NDArray[np.float32]
) -> None:
    with opened(graph) as session, pytest.raises(BadInput, match="takes float32 images"):
        session.run(images)


def test_a_closed_session_says_so(graph: tuple[Artifact, Path], tiny_images: Images) -> None:
    session = opened(graph)
    session.close()
    with pytest.raises(BadInput, match="closed"):
        session.run(tiny_images[:1])
