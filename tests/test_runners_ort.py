"""ONNX Runtime on the CPU: what it computes, how many threads, what it refuses, what it imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import ArtifactDamaged, BadInput
from harness.interfaces import RUNNERS, RunOptions, Session
from harness.records import Artifact, ModelSpec, encode

pytest.importorskip("onnxruntime", reason="the runtime under test")
pytest.importorskip("onnxscript", reason="makes the file that is run")

Images = NDArray[np.float32]
MakeArtifact = Callable[..., tuple[Artifact, Path]]

ALONE = """
import os, sys
import numpy as np
from pathlib import Path
from harness.interfaces import RUNNERS, RunOptions
from harness.records import Artifact, decode

folder, threads = Path(sys.argv[1]), int(sys.argv[2])
artifact = decode((folder / "manifest.json").read_bytes(), Artifact, folder)
runner = RUNNERS.get("ort_cpu")()
import onnxruntime  # its import starts no compute threads, but may start others
before = len(os.listdir("/proc/self/task"))
with runner.open(artifact, folder, RunOptions(threads=threads)) as session:
    session.run(np.zeros(artifact.inputs[0].shape, np.float32))
    print(len(os.listdir("/proc/self/task")) - before)
print([name for name in ("torch", "onnx", "tensorflow", "models") if name in sys.modules])
"""


@pytest.fixture
def exported(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> tuple[Artifact, Path]:
    return export_artifact("onnx_float", tiny_spec)


def opened(exported: tuple[Artifact, Path]) -> Session:
    return RUNNERS.get("ort_cpu")().open(*exported, RunOptions())


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_those_asked_for_and_the_runtime_is_alone(
    exported: tuple[Artifact, Path], threads: int
) -> None:
    artifact, folder = exported
    (folder / "manifest.json").write_bytes(encode(artifact))
    answer = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder), str(threads)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    workers, imported = answer.stdout.splitlines()
    assert int(workers) == threads - 1  # the caller's thread is the first
    assert imported == "[]"


def test_answers_are_the_callers_own(exported: tuple[Artifact, Path], tiny_images: Images) -> None:
    with opened(exported) as session:
        first = session.run(tiny_images[:1])
        kept = first.logits.copy()
        second = session.run(tiny_images[1:2])
    assert np.array_equal(first.logits, kept)
    assert not np.array_equal(first.logits, second.logits)
    assert first.logits.shape == (1, 160, 5)
    assert first.offsets.shape == (1, 160, 4)
    assert list(session.versions) == ["onnxruntime"]


@pytest.mark.parametrize("keep", [0, 1, 1000])
def test_a_damaged_file_is_one_sentence(
    exported: tuple[Artifact, Path], tmp_path: Path, keep: int
) -> None:
    artifact, folder = exported
    data = (folder / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[:keep])
    with pytest.raises(ArtifactDamaged, match=r"cannot be loaded by ONNX Runtime .* again$") as e:
        opened((artifact, tmp_path))
    assert "\n" not in str(e.value)


def test_a_missing_file_is_one_sentence(exported: tuple[Artifact, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactDamaged, match="export tiny again"):
        opened((exported[0], tmp_path))


@pytest.mark.slow
def test_another_models_manifest_is_refused(
    exported: tuple[Artifact, Path], tiny_spec: ModelSpec, export_artifact: MakeArtifact
) -> None:
    other, _ = export_artifact("onnx_float", tiny_spec, batch=4)
    with pytest.raises(ArtifactDamaged, match=r"manifest says image \(4, 3, 32, 32\)"):
        opened((other, exported[1]))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 32, 32), np.float64),
        np.zeros((1, 3, 30, 32), np.float32),
        np.zeros((2, 3, 32, 32), np.float32),
    ],
)
def test_other_images_are_refused(
    exported: tuple[Artifact, Path], images: NDArray[np.float32]
) -> None:
    with opened(exported) as session, pytest.raises(BadInput, match="takes float32 images"):
        session.run(images)


def test_a_closed_session_says_so(exported: tuple[Artifact, Path], tiny_images: Images) -> None:
    session = opened(exported)
    session.close()
    with pytest.raises(BadInput, match="closed"):
        session.run(tiny_images[:1])
