"""Users' own files: inferred where they tell, refused in a sentence where they do not, and real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import artifacts
from harness.errors import ArtifactDamaged, BadConfig, DetbenchError, UnknownName
from harness.foreign import adopt
from harness.images import Preprocessor
from harness.interfaces import RUNNERS, Detections, RunOptions
from harness.outputs import KINDS
from harness.records import Artifact, ModelSpec

IMAGE = "image: {mean: [127, 127, 127], std: [128, 128, 128]}\n"


def detections(folder: Path, pictures: list[NDArray[np.uint8]]) -> list[Detections]:
    artifact = artifacts.load(folder) if (folder / "artifact.json").is_file() else None
    assert artifact is not None
    return run(artifact, folder, pictures)


def run(artifact: Artifact, folder: Path, pictures: list[NDArray[np.uint8]]) -> list[Detections]:
    name = {"onnx": "ort_cpu", "tflite": "litert_cpu"}[artifact.format]
    prepare = Preprocessor(artifact.image, artifact.inputs[0])
    found = []
    with RUNNERS.get(name)().open(artifact, folder, RunOptions()) as session:
        for picture in pictures:
            answer = session.run(prepare(picture))
            kind = KINDS[artifact.output_kind]
            found += kind.detections(artifact, artifacts.priors(folder), answer, [(48, 64)])
    return found


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file whose only prior covers the middle; three scores by the image's mean colour."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Reshape", ["mean", "rows"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"], axis=2),
        helper.make_node("Identity", ["corners"], ["boxes"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([1, 1, 3]), "rows"),
        onnx.numpy_helper.from_array(np.array([[[0.2, 0.3, 0.8, 0.9]]], np.float32), "corners"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("picture", kind, ["n", 3, 8, 10])],
        [
            helper.make_tensor_value_info("scores", kind, [1, 1, 3]),
            helper.make_tensor_value_info("boxes", kind, [1, 1, 4]),
            helper.make_tensor_value_info("raw", kind, [1, 1, 3]),
        ],
        constants,
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def manifest(folder: Path, text: str, name: str = "manifest.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_that_tells_needs_mean_and_std_only(small: Path, tmp_path: Path) -> None:
    folder = adopt(small, manifest(tmp_path, IMAGE), tmp_path / "out")
    artifact = artifacts.load(folder)
    assert (artifact.image.height, artifact.image.width) == (8, 10)
    assert artifact.output_kind == "scored_boxes"
    assert artifact.labels == ("background", "class 1", "class 2")
    assert artifact.inputs[0].shape == (1, 3, 8, 10)
    assert artifact.notes == (artifacts.NO_REFERENCE,)
    assert artifacts.golden(folder) is None
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 2] = 255
    found = run(artifact, folder, [blue])[0]
    np.testing.assert_array_equal(found.labels, [2, 1])
    np.testing.assert_allclose(found.boxes[0], [0.2 * 64, 0.3 * 48, 0.8 * 64, 0.9 * 48], rtol=1e-6)


def test_raw_heads_come_with_priors_from_a_file(small: Path, tmp_path: Path) -> None:
    (tmp_path / "priors.json").write_text(json.dumps([[0.5, 0.6, 0.6, 0.6]]))
    text = "outputs: {kind: heads, tensors: {logits: raw, offsets: boxes}}\npriors: priors.json\n"
    folder = adopt(small, manifest(tmp_path, IMAGE + text), tmp_path / "out")
    artifact = artifacts.load(folder)
    assert [spec.name for spec in artifact.outputs] == ["raw", "boxes"]
    np.testing.assert_allclose(artifacts.priors(folder), [[0.5, 0.6, 0.6, 0.6]], rtol=1e-6)


def test_a_changed_manifest_makes_another_artifact(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    first = adopt(small, manifest(tmp_path, IMAGE))
    assert adopt(small, manifest(tmp_path, IMAGE)) == first
    other = adopt(small, manifest(tmp_path, IMAGE + "labels: [background, red, blue]\n"))
    assert other != first
    assert artifacts.load(other).sha256 == artifacts.load(first).sha256


BAD = {
    "name: mine": "give image.mean and image.std",
    "": "holds no keys",
    "image: {mean: [1, 2], std: [1, 1, 1]}": "Expected `array` of length 3",
    "imge: {}": "unknown field `imge`",
    IMAGE + "labels: [background, one]": "names 2 classes, the file needs 3 of them",
    IMAGE + "labels: nowhere.txt": "labels .*nowhere.txt cannot be read",
    IMAGE + "outputs: {kind: nms}": "Invalid enum value 'nms'",
    IMAGE + "outputs: {kind: detections}": "answers 'scores' float32 .* give outputs.kind and",
    IMAGE + "outputs: {kind: heads, tensors: {logits: raw, offsets: boxes}}": "has no priors",
    IMAGE + "outputs: {kind: heads, tensors: {logits: raw, offsets: deltas}}": "give outputs.kind",
    IMAGE.replace("127", "0") + "outputs: {kind: scored_boxes, tensors: {scores: raw}}": (
        "the scores answer .* expected 0 to 1: for raw"
    ),
    IMAGE + "outputs: {kind: heads, tensors: {logits: scores, offsets: boxes}}\npriors: p.npy": (
        "p.npy cannot be read"
    ),
    IMAGE + "outputs: {kind: heads, tensors: {logits: raw, offsets: boxes}}\npriors: few.json": (
        r"have shape \(2, 4\), the file's heads need \(1, 4\)"
    ),
    IMAGE + "outputs: {kind: heads, tensors: {logits: scores, offsets: boxes}}\npriors: one.json": (
        "sums to 1 over the classes, so it holds scores already"
    ),
    IMAGE + "decoding: {policy: tensorflow}": "unknown decoding policy 'tensorflow'",
    IMAGE + "decoding: {iou: 0.5}": "cannot be changed so",
    "image: {mean: [0, 0, 0], std: [255, 255, 255], height: 300}": "takes 8: leave it out",
    "image: {mean: [0, 0, 0], std: [0, 1, 1]}": "std above 0",
    "image: {mean: [0, 0, 0], std: [1, 1, 1], layout: NHWC}": "expected .* from the image spec",
    "- 1": "holds no keys",
    "a: [": "is not valid YAML",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_manifests_end_in_one_sentence(text: str, small: Path, tmp_path: Path) -> None:
    (tmp_path / "few.json").write_text(json.dumps([[0.5] * 4] * 2))
    (tmp_path / "one.json").write_text(json.dumps([[0.5] * 4]))
    with pytest.raises((BadConfig, UnknownName, DetbenchError), match=BAD[text]) as caught:
        adopt(small, manifest(tmp_path, text), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".staging*"))


@pytest.mark.parametrize(
    ("name", "data", "kind", "said"),
    [
        ("model.onnx", b"no model", ArtifactDamaged, "cannot be loaded by ONNX Runtime"),
        ("model.tflite", b"no model", ArtifactDamaged, "is not a TensorFlow Lite file"),
        ("model.pb", b"", BadConfig, "is no .onnx and .tflite file"),
    ],
)
def test_files_that_no_runtime_loads(
    name: str, data: bytes, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(kind, match=said):
        adopt(tmp_path / name)
    with pytest.raises(BadConfig, match="does not exist"):
        adopt(tmp_path / "absent.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "options"),
    [
        ("onnx_float", {"outputs": "scored_boxes", "names": "pytorch-ssd"}),
        ("tflite_float", {"outputs": "detections"}),
    ],
)
def test_an_adopted_export_detects_what_the_export_detects(
    exporter: str,
    options: dict[str, Any],
    tiny_spec: ModelSpec,
    export_artifact: Any,
    tmp_path: Path,
) -> None:
    pytest.importorskip({"onnx_float": "onnx", "tflite_float": "tensorflow"}[exporter])
    artifact, made = export_artifact(exporter, tiny_spec, None, **options)
    file = made / artifact.files[0].path
    text = IMAGE + f"labels: [{', '.join(tiny_spec.labels)}]\n"
    folder = adopt(file, manifest(tmp_path, text), tmp_path / "out")
    adopted = artifacts.load(folder)
    assert adopted.output_kind == artifact.output_kind
    assert [spec.name for spec in adopted.outputs] == list(KINDS[artifact.output_kind].names)
    for ours, theirs in zip(
        run(artifact, made, pictures()), detections(folder, pictures()), strict=True
    ):
        assert len(ours.scores) > 3
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_published_face_detector(shared: Path, tmp_path: Path) -> None:
    """Its file answers scores after softmax beside raw offsets, whatever its tensors' names say."""
    pytest.importorskip("torch", reason="priors come from the model's own rule")
    file = shared / "data/weights/version-slim-320_without_postprocessing.onnx"
    labels = "labels: [background, face]\n"
    policy = "decoding: {policy: ultra-light-face, score: none}\n"
    with pytest.raises(BadConfig, match="some end before they begin"):
        adopt(file, manifest(tmp_path, IMAGE + labels), tmp_path / "wrong")
    heads = "outputs: {kind: heads, tensors: {logits: scores, offsets: boxes}}\n"
    text = IMAGE + labels + policy + heads + "priors: slim_320_face\n"
    folder = adopt(file, manifest(tmp_path, text), tmp_path / "out")
    artifact = artifacts.load(folder)
    golden = np.load(shared / "reference/slim-320-face.npz")
    rng = np.random.Generator(np.random.PCG64(0))
    image = rng.normal(0, 1, (1, 3, 240, 320)).astype(np.float32)
    with RUNNERS.get("ort_cpu")().open(artifact, folder, RunOptions()) as session:
        scores, offsets = session.run(image)
    rows = golden["rows"]
    powers = np.exp(golden["logits"] - golden["logits"].max(-1, keepdims=True))
    np.testing.assert_allclose(scores[0, rows], powers / powers.sum(-1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(offsets[0, rows], golden["locations"], atol=2e-4)
    np.testing.assert_allclose(artifacts.priors(folder)[rows], golden["priors"], atol=1e-6)


def test_scores_are_taken_as_they_are_where_the_manifest_says_so() -> None:
    from harness.decode import decode
    from harness.interfaces import RawOutputs
    from harness.records import Decoding

    scores = np.array([[[0.3, 0.7], [0.95, 0.05], [0.999, 0.001]]], np.float32)
    priors = np.array([[0.2, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.8, 0.5, 0.1, 0.1]], "f4")
    (found,) = decode(
        RawOutputs(scores, np.zeros((1, 3, 4), np.float32)),
        priors=priors,
        decoding=Decoding(score="none"),
        sizes=[(10, 10)],
    )
    np.testing.assert_array_equal(found.scores, np.float32([0.7, 0.05]))
