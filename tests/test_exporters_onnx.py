"""ONNX exports: what the file computes, what it is made of, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import BadImage, ExportFailed
from harness.interfaces import EXPORTERS, RUNNERS, ExportJob, RawOutputs, RunOptions
from harness.machine import machine_record
from harness.ranges import METHODS
from harness.records import Artifact, ModelSpec, Scalar

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
onnx = pytest.importorskip("onnx", reason="reads what was exported")
pytest.importorskip("onnxruntime", reason="runs what was exported")

from torch import nn  # noqa: E402  # after the skip

from exporters._int8_sums import saturates  # noqa: E402  # after the skip
from exporters._ort_quantize import tail  # noqa: E402  # after the skip

Images = NDArray[np.float32]
Calibration = Callable[[], Iterator[Images]]
MakeArtifact = Callable[..., tuple[Artifact, Path]]


def reference(spec: ModelSpec, images: Images) -> RawOutputs:
    with torch.inference_mode():
        logits, offsets = spec.build()(torch.from_numpy(images))
    return RawOutputs(logits.numpy(), offsets.numpy())


def run(artifact: Artifact, folder: Path, images: Images) -> RawOutputs:
    """All images through the runner, in batches of the artifact's size."""
    size = artifact.inputs[0].shape[0]
    with RUNNERS.get("ort_cpu")().open(artifact, folder, RunOptions()) as session:
        answers = [session.run(images[i : i + size]) for i in range(0, len(images), size)]
    return RawOutputs(*(np.concatenate(head) for head in zip(*answers, strict=True)))


def relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def sqnr_db(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(10 * np.log10((expected**2).sum() / ((got - expected) ** 2).sum()))


def job(name: str, spec: ModelSpec, folder: Path, **changes: Any) -> ExportJob:
    given: dict[str, Any] = {
        "spec": spec,
        "network": spec.build(),
        "options": EXPORTERS.get(name).options,
        "calibration": None,
        "folder": folder,
    }
    return ExportJob(**{**given, **changes})


def read(folder: Path) -> Any:
    return onnx.load(str(folder / "model.onnx"))


def test_float_computes_what_the_network_computes(
    tiny_spec: ModelSpec, tiny_images: Images, export_artifact: MakeArtifact
) -> None:
    artifact, folder = export_artifact("onnx_float", tiny_spec)
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert relative_error(got.logits, expected.logits) < 1e-5
    assert relative_error(got.offsets, expected.offsets) < 1e-5


def test_float_file_is_whole_and_lean(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> None:
    artifact, folder = export_artifact("onnx_float", tiny_spec)
    model = read(folder)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert set(kinds) == {"Add", "Clip", "Concat", "Conv", "Reshape", "Transpose"}
    assert kinds["Conv"] == 14
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    assert [entry.path for entry in artifact.files if entry.role == "model"] == ["model.onnx"]
    assert artifact.inputs[0].shape == (1, 3, 32, 32)
    assert [spec.shape for spec in artifact.outputs] == [(1, 160, 5), (1, 160, 4)]


@pytest.mark.slow
def test_float_file_is_the_same_each_time_and_names_no_path(
    tiny_spec: ModelSpec, tmp_path: Path, export_artifact: MakeArtifact
) -> None:
    _, folder = export_artifact("onnx_float", tiny_spec)
    EXPORTERS.get("onnx_float")().export(job("onnx_float", tiny_spec, tmp_path))
    data = (tmp_path / "model.onnx").read_bytes()
    assert data == (folder / "model.onnx").read_bytes()
    assert sys.prefix.encode() not in data
    assert str(Path(__file__).parent).encode() not in data


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_float_in_other_opsets(
    tiny_spec: ModelSpec, tiny_images: Images, export_artifact: MakeArtifact, opset: int
) -> None:
    artifact, folder = export_artifact("onnx_float", tiny_spec, opset=opset)
    assert [entry.version for entry in read(folder).opset_import if not entry.domain] == [opset]
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert relative_error(got.logits, expected.logits) < 1e-5


@pytest.mark.slow
def test_float_with_a_batch(
    tiny_spec: ModelSpec, tiny_images: Images, export_artifact: MakeArtifact
) -> None:
    artifact, folder = export_artifact("onnx_float", tiny_spec, batch=4)
    assert artifact.inputs[0].shape == (4, 3, 32, 32)
    assert artifact.outputs[0].shape == (4, 160, 5)
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert relative_error(got.offsets, expected.offsets) < 1e-5


@pytest.mark.slow
def test_int8_is_close_and_not_float(
    tiny_spec: ModelSpec,
    tiny_images: Images,
    tiny_calibration: Calibration,
    export_artifact: MakeArtifact,
) -> None:
    artifact, folder = export_artifact("onnx_int8", tiny_spec, tiny_calibration)
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert 20 < sqnr_db(got.logits, expected.logits) < 60
    assert 20 < sqnr_db(got.offsets, expected.offsets) < 60
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"float32"}


def initializers(model: Any) -> dict[str, NDArray[Any]]:
    return {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}


def weights(model: Any) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Quantized weights and scales of all convolutions."""
    values = initializers(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    found = [producers[node.input[1]] for node in convolutions]
    assert {node.op_type for node in found} == {"DequantizeLinear"}
    return [(values[node.input[0]], values[node.input[1]]) for node in found]


def test_int8_weights_are_signed_per_channel_and_activations_unsigned(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    model = read(export_artifact("onnx_int8", tiny_spec, tiny_calibration)[1])
    for quantized, scales in weights(model):
        assert quantized.dtype == np.int8
        assert scales.shape == (quantized.shape[0],)
    values = initializers(model)
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(activations) >= 14
    assert {values[node.input[2]].dtype for node in activations} == {np.dtype(np.uint8)}
    assert {values[node.input[1]].shape for node in activations} == {()}


def test_int8_leaves_the_joining_of_the_heads_in_float(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    model = read(export_artifact("onnx_int8", tiny_spec, tiny_calibration)[1])
    moving = {"Concat", "Reshape", "Transpose"}
    assert len(tail(model)) == sum(node.op_type in moving for node in model.graph.node) == 10
    producers = {name: node for node in model.graph.node for name in node.output}
    last = [producers[value.name].op_type for value in model.graph.output]
    assert last == ["Concat", "Concat"]


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"minmax"}))
def test_int8_calibrated_by_histograms(
    tiny_spec: ModelSpec,
    tiny_images: Images,
    tiny_calibration: Calibration,
    export_artifact: MakeArtifact,
    capfd: pytest.CaptureFixture[str],
    method: str,
) -> None:
    artifact, folder = export_artifact("onnx_int8", tiny_spec, tiny_calibration, calibration=method)
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert sqnr_db(got.logits, expected.logits) > 15
    assert capfd.readouterr().out == ""
    plain = export_artifact("onnx_int8", tiny_spec, tiny_calibration)[0]
    assert artifact.sha256 != plain.sha256


@pytest.mark.slow
def test_int8_reduced_range_uses_seven_bits(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    _, reduced = export_artifact("onnx_int8", tiny_spec, tiny_calibration, reduce_range=True)
    _, whole = export_artifact("onnx_int8", tiny_spec, tiny_calibration, reduce_range=False)
    largest = [
        max(int(np.abs(quantized.astype(int)).max()) for quantized, _ in weights(read(folder)))
        for folder in (reduced, whole)
    ]
    assert largest == [64, 127]


@pytest.mark.parametrize(
    ("architecture", "features", "reduced"),
    [
        ("x86_64", ("avx", "avx2", "fma"), True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", None, True),
        ("aarch64", ("asimd", "asimddp"), False),
    ],
)
def test_weights_have_seven_bits_where_sums_have_sixteen(
    architecture: str, features: tuple[str, ...] | None, reduced: bool
) -> None:
    machine = msgspec.structs.replace(
        machine_record(), architecture=architecture, features=features
    )
    assert saturates(machine) is reduced


def test_by_default_weights_are_what_this_cpu_needs(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    artifact, _ = export_artifact("onnx_int8", tiny_spec, tiny_calibration)
    bits = 7 if saturates(machine_record()) else 8
    assert f"weights have {bits} bits" in artifact.notes


def test_int8_leaves_nothing_but_the_model(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    given = job("onnx_int8", tiny_spec, tmp_path, calibration=tiny_calibration)
    before = {key: value.clone() for key, value in given.network.state_dict().items()}
    EXPORTERS.get("onnx_int8")().export(given)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    after = given.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_int8_without_images_is_refused(tiny_spec: ModelSpec, tmp_path: Path, method: str) -> None:
    given = job(
        "onnx_int8",
        tiny_spec,
        tmp_path,
        calibration=lambda: iter(()),
        options={**EXPORTERS.get("onnx_int8").options, "calibration": method},
    )
    with pytest.raises(ExportFailed, match="needs calibration images and got none"):
        EXPORTERS.get("onnx_int8")().export(given)


def test_int8_with_images_of_another_size_is_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    wrong = np.zeros((1, 3, 30, 32), np.float32)
    given = job("onnx_int8", tiny_spec, tmp_path, calibration=lambda: iter([wrong]))
    with pytest.raises(ExportFailed, match=r"\(1, 3, 30, 32\).* needs float32 \(1, 3, 32, 32\)"):
        EXPORTERS.get("onnx_int8")().export(given)


def test_an_unreadable_calibration_image_keeps_its_own_error(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    def images() -> Iterator[Images]:
        yield np.zeros((1, 3, 32, 32), np.float32)
        raise BadImage("0001.jpg is empty: remove it")

    given = job("onnx_int8", tiny_spec, tmp_path, calibration=images)
    with pytest.raises(BadImage, match=r"0001\.jpg is empty"):
        EXPORTERS.get("onnx_int8")().export(given)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("onnx_float", {"opset": 12}, "option opset=12 is out of range"),
        ("onnx_float", {"opset": 99}, "from 18 to 23"),
        ("onnx_float", {"batch": 0}, "option batch=0 is out of range"),
        ("onnx_int8", {"calibration": "median"}, "give minmax or percentile or entropy or mse"),
        ("onnx_int8", {"opset": 17}, "from 18 to 23"),
        ("onnx_int8", {"reduce_range": "no"}, "give true, false or null"),
    ],
)
def test_impossible_options_are_named(
    tiny_spec: ModelSpec, name: str, options: dict[str, Scalar], words: str
) -> None:
    exporter = EXPORTERS.get(name)()
    assert exporter.unsupported(tiny_spec, exporter.options) is None
    refusal = exporter.unsupported(tiny_spec, {**exporter.options, **options})
    assert refusal is not None
    assert words in refusal


def test_a_network_that_cannot_be_captured_fails_with_one_sentence(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    class Undecided(nn.Module):
        def forward(self, image: Any) -> Any:
            return image if image.sum() > 0 else -image

    given = job("onnx_float", tiny_spec, tmp_path, network=Undecided().eval())
    with pytest.raises(ExportFailed, match=r"^torch\.onnx cannot export tiny: \w+: ") as caught:
        EXPORTERS.get("onnx_float")().export(given)
    assert "\n" not in str(caught.value)


def test_a_spec_that_does_not_fit_its_network_is_refused(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(tiny_spec, priors=tiny_spec.priors[:-1])
    with pytest.raises(ExportFailed, match=r"\(1, 160, 5\).* its spec says .*\(1, 159, 5\)"):
        EXPORTERS.get("onnx_float")().export(job("onnx_float", wrong, tmp_path))


@pytest.mark.slow
def test_mb2_float_gives_the_published_networks_outputs(
    golden_mb2: ModelSpec, golden_image: Images, export_artifact: MakeArtifact, shared: Path
) -> None:
    artifact, folder = export_artifact("onnx_float", golden_mb2)
    got = run(artifact, folder, golden_image)
    with np.load(shared / "reference" / "mb2-ssd-lite.npz") as golden:
        rows = golden["rows"]
        assert relative_error(got.logits[0, rows], golden["logits"]) < 1e-4
        assert relative_error(got.offsets[0, rows], golden["locations"]) < 1e-4
