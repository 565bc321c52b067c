"""The LiteRT runner: what it loads, what it answers, what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from harness.decode import dequantize
from harness.errors import ArtifactDamaged, BadInput
from harness.images import Preprocessor
from harness.interfaces import EXPORTERS, RUNNERS, ExportJob, RawOutputs, RunOptions
from harness.records import Artifact, FileEntry, ModelSpec, TensorSpec

pytest.importorskip("ai_edge_litert", reason="the runtime under test")
torch = pytest.importorskip("torch", reason="the reference")
pytest.importorskip("tensorflow", reason="makes the files that are run here")

Calibration = Callable[[], Iterator[NDArray[np.float32]]]


def artifact_of(
    exporter_name: str,
    spec: ModelSpec,
    folder: Path,
    calibration: Calibration | None = None,
    **options: Any,
) -> Artifact:
    """Export ``spec`` and describe the file as the harness would."""
    exporter = EXPORTERS.get(exporter_name)()
    asked = {**exporter.options, **options}
    job = ExportJob(
        spec=spec, network=spec.build(), options=asked, calibration=calibration, folder=folder
    )
    made = exporter.export(job)
    (name,) = made.files
    size = (folder / name).stat().st_size
    return Artifact(
        model=spec.name,
        model_options={},
        weights_sha256="",
        weights_source="",
        recipe="",
        exporter=exporter.name,
        format=exporter.format,
        precision=exporter.precision,
        options=asked,
        files=(FileEntry(path=name, role="model", sha256="", size_bytes=size),),
        sha256="",
        size_bytes=size,
        inputs=made.inputs,
        outputs=made.outputs,
        image=spec.image,
        decoding=spec.decoding,
        labels=spec.labels,
        calibration=None,
        toolchain={},
        fingerprint="",
        created_at="",
        export_ns=0,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tflite")


@pytest.fixture(scope="module")
def artifact(tiny_spec: ModelSpec, folder: Path) -> Artifact:
    return artifact_of("tflite_float", tiny_spec, folder)


def pictures(spec: ModelSpec, count: int) -> NDArray[np.uint8]:
    """Smooth pictures, ``(count, h, w, 3)``."""
    coarse = np.random.default_rng(4).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(spec.image.height // 4, axis=1).repeat(spec.image.width // 4, axis=2)


def expect(spec: ModelSpec, images: NDArray[np.uint8]) -> RawOutputs:
    """The float network's answers."""
    tensor = TensorSpec(
        name="x",
        dtype="float32",
        shape=(1, 3, spec.image.height, spec.image.width),
        layout="NCHW",
    )
    prepare = Preprocessor(spec.image, tensor)
    batch = torch.from_numpy(np.concatenate([prepare(image) for image in images]))
    with torch.inference_mode():
        return RawOutputs(*(head.numpy() for head in spec.build()(batch)))


def run_all(artifact: Artifact, folder: Path, images: NDArray[np.uint8]) -> RawOutputs:
    """Real-valued outputs, by the harness's own preparation and dequantization."""
    prepare = Preprocessor(artifact.image, artifact.inputs[0])
    with RUNNERS.get("litert_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        answers = [
            [
                dequantize(values, tensor)
                for values, tensor in zip(
                    session.run(prepare(image)), artifact.outputs, strict=True
                )
            ]
            for image in images
        ]
    return RawOutputs(*(np.concatenate(head) for head in zip(*answers, strict=True)))


def test_float_answers_are_the_networks(
    artifact: Artifact, folder: Path, tiny_spec: ModelSpec
) -> None:
    images = pictures(tiny_spec, 4)
    reference, got = expect(tiny_spec, images), run_all(artifact, folder, images)
    for expected, answer in zip(reference, got, strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)


def test_int8_tensors_travel_through_the_harness(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    """int8 and float32 input and output give the same answers, close to the network's."""
    images = pictures(tiny_spec, 4)
    answers = []
    for io in ("int8", "float32"):
        folder = tmp_path / io
        folder.mkdir()
        made = artifact_of("tflite_int8", tiny_spec, folder, tiny_calibration, io=io)
        answers.append(run_all(made, folder, images))
    for expected, inner, outer in zip(expect(tiny_spec, images), *answers, strict=True):
        np.testing.assert_allclose(inner, outer, atol=1e-6)
        correlation = np.corrcoef(inner.ravel(), expected.ravel())[0, 1]
        assert correlation > 0.97


def zeros(artifact: Artifact) -> NDArray[Any]:
    image = artifact.inputs[0]
    return np.zeros(image.shape, image.dtype)


def test_answers_are_copies(artifact: Artifact, folder: Path) -> None:
    with RUNNERS.get("litert_cpu")().open(artifact, folder, RunOptions()) as session:
        first = session.run(zeros(artifact))
        kept = first.logits.copy()
        second = session.run(zeros(artifact) + 1)
        np.testing.assert_array_equal(first.logits, kept)
        assert not np.array_equal(first.logits, second.logits)


def test_versions_name_the_runtime_alone(artifact: Artifact, folder: Path) -> None:
    with RUNNERS.get("litert_cpu")().open(artifact, folder, RunOptions()) as session:
        assert list(session.versions) == ["ai-edge-litert"]


def test_every_thread_that_is_asked_for_exists(artifact: Artifact, folder: Path) -> None:
    """The calling thread works too, so n threads are n - 1 new ones; closing ends them."""
    process = psutil.Process()
    runner = RUNNERS.get("litert_cpu")()
    for threads in (1, 2, 4):
        before = process.num_threads()
        with runner.open(artifact, folder, RunOptions(threads=threads)) as session:
            session.run(zeros(artifact))
            assert process.num_threads() - before == threads - 1
        assert process.num_threads() == before


def test_xnnpack_runs_the_convolutions(artifact: Artifact, folder: Path) -> None:
    with RUNNERS.get("litert_cpu")().open(artifact, folder, RunOptions()) as session:
        details = session._interpreter._get_ops_details()  # type: ignore[attr-defined]  # no public list
    assert "DELEGATE" in {detail["op_name"] for detail in details}


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), r"float32 of shape \(1, 3, 32, 32\)"),
        (np.zeros((2, 32, 32, 3), np.float32), r"float32 of shape \(2, 32, 32, 3\)"),
        (np.zeros((1, 32, 32, 3), np.float64), "got float64"),
    ],
    ids=["NCHW", "batch 2", "float64"],
)
def test_another_input_is_refused(
    images: NDArray[Any], got: str, artifact: Artifact, folder: Path
) -> None:
    with (
        RUNNERS.get("litert_cpu")().open(artifact, folder, RunOptions()) as session,
        pytest.raises(BadInput, match=got),
    ):
        session.run(images)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.9999])
def test_a_truncated_file_is_damaged(
    part: float, artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    name = artifact.files[0].path
    data = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(part * len(data))])
    with pytest.raises(ArtifactDamaged, match="export tiny again"):
        RUNNERS.get("litert_cpu")().open(artifact, tmp_path, RunOptions())


def test_a_file_of_another_kind_is_damaged(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / artifact.files[0].path).write_bytes(b"\x08\x07\x12\x05torch" * 1000)
    with pytest.raises(ArtifactDamaged, match="not a TensorFlow Lite file"):
        RUNNERS.get("litert_cpu")().open(artifact, tmp_path, RunOptions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "scores"}, "no input or output 'scores'"),
        ({"shape": (1, 160, 6)}, r"\(1, 160, 6\)"),
        ({"dtype": "int8", "scale": 0.5, "zero_point": 3}, "its manifest says int8"),
    ],
    ids=["name", "shape", "type"],
)
def test_a_manifest_of_another_file_is_noticed(
    change: dict[str, Any], message: str, artifact: Artifact, folder: Path
) -> None:
    logits, offsets = artifact.outputs
    wrong = msgspec.structs.replace(
        artifact, outputs=(msgspec.structs.replace(logits, **change), offsets)
    )
    with pytest.raises(ArtifactDamaged, match=message):
        RUNNERS.get("litert_cpu")().open(wrong, folder, RunOptions())


def test_other_formats_and_targets_are_unsupported() -> None:
    runner = RUNNERS.get("litert_cpu")()
    assert runner.unsupported("tflite", RunOptions()) is None
    assert runner.unsupported("onnx", RunOptions()) == "litert_cpu runs tflite, not onnx"
    assert runner.unsupported("tflite", RunOptions(target="npu")) is not None
