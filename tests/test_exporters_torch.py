"""PyTorch exports: what the file computes, what it is made of, and what is refused."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import BadImage, ExportFailed
from harness.interfaces import EXPORTERS, RUNNERS, ExportJob, RawOutputs, RunOptions
from harness.records import Artifact, ModelSpec, Scalar

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
pytest.importorskip("torchao", reason="quantizes")

from torch import Tensor, nn  # noqa: E402  # after the skip

from exporters._fold import fold_batch_norms  # noqa: E402  # after the skip

Images = NDArray[np.float32]
Calibration = Callable[[], Iterator[Images]]
MakeArtifact = Callable[..., tuple[Artifact, Path]]

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler"
)


def reference(spec: ModelSpec, images: Images) -> RawOutputs:
    with torch.inference_mode():
        logits, offsets = spec.build()(torch.from_numpy(images))
    return RawOutputs(logits.numpy(), offsets.numpy())


def run(artifact: Artifact, folder: Path, images: Images) -> RawOutputs:
    """All images through the runner, in batches of the artifact's size."""
    size = artifact.inputs[0].shape[0]
    with RUNNERS.get("torch_cpu")().open(artifact, folder, RunOptions()) as session:
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


def calls(module: Any) -> list[str]:
    """Names of the operators that a captured graph calls."""
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def test_float_computes_what_the_network_computes(
    tiny_spec: ModelSpec, tiny_images: Images, export_artifact: MakeArtifact
) -> None:
    artifact, folder = export_artifact("torch_float", tiny_spec)
    assert artifact.format == "torch_export"
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert relative_error(got.logits, expected.logits) < 1e-5
    assert relative_error(got.offsets, expected.offsets) < 1e-5


def test_float_with_a_batch(
    tiny_spec: ModelSpec, tiny_images: Images, export_artifact: MakeArtifact
) -> None:
    artifact, folder = export_artifact("torch_float", tiny_spec, batch=4)
    assert artifact.inputs[0].shape == (4, 3, 32, 32)
    assert artifact.outputs[1].shape == (4, 160, 4)
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert relative_error(got.offsets, expected.offsets) < 1e-5


def test_float_file_is_folded_and_in_channels_last(
    tiny_spec: ModelSpec, export_artifact: MakeArtifact
) -> None:
    _, folder = export_artifact("torch_float", tiny_spec)
    program = torch.export.load(folder / "model.pt2")
    names = calls(program)
    assert names.count("aten.conv2d.default") == 14
    assert not [name for name in names if "batch_norm" in name]
    weights = [value for value in program.state_dict.values() if value.ndim == 4]
    assert len(weights) == 14
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in weights)
    biases = [value for value in program.state_dict.values() if value.ndim == 1]
    assert len(biases) == 14, "nothing of the batch norms is left"


class Shared(nn.Module):
    """A convolution that two readers share, a batch norm before one, and one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.early, self.last = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
        self.after = nn.BatchNorm2d(4, affine=False)
        for norm in (self.norm, self.early, self.after):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.first(x)
        y: Tensor = self.norm(shared) + shared + self.after(self.last(self.early(x)))
        return y


def test_only_a_batch_norm_that_is_the_sole_reader_of_a_convolution_is_folded() -> None:
    torch.manual_seed(0)
    network, image = Shared().eval(), torch.randn(1, 3, 8, 8)
    module = torch.export.export(network, (image,)).module()
    assert fold_batch_norms(module) == 1
    assert calls(module).count("aten.batch_norm.default") == 2
    with torch.no_grad():
        assert torch.allclose(module(image), network(image), atol=1e-5)
    assert {"folded_weight_0", "folded_bias_0"} <= dict(module.named_parameters()).keys()
    assert "last.weight" not in dict(module.named_parameters())


def test_a_batch_norm_in_training_is_not_folded() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    module = torch.export.export(network, (torch.randn(2, 3, 8, 8),)).module()
    assert fold_batch_norms(module) == 0


def test_int8_graph_is_close_and_not_float(
    tiny_spec: ModelSpec,
    tiny_images: Images,
    tiny_calibration: Calibration,
    export_artifact: MakeArtifact,
) -> None:
    artifact, folder = export_artifact("torch_int8", tiny_spec, tiny_calibration, package="export")
    assert artifact.format == "torch_export"
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    assert 20 < sqnr_db(got.logits, expected.logits) < 60
    assert 20 < sqnr_db(got.offsets, expected.offsets) < 60


def test_activations_of_a_graph_that_computes_in_float_have_eight_bits(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    """Whatever this CPU's integer sums are: a seventh bit would be lost for nothing."""
    _, folder = export_artifact("torch_int8", tiny_spec, tiny_calibration, package="export")
    nodes = torch.export.load(folder / "model.pt2").graph.nodes
    ranges = [node.args[3:5] for node in nodes if "quantize_per_tensor" in str(node.target)]
    assert len(ranges) > 10
    assert set(ranges) == {(0, 255)}


def test_int8_graph_holds_no_float_weights(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    _, folder = export_artifact("torch_int8", tiny_spec, tiny_calibration, package="export")
    program = torch.export.load(folder / "model.pt2")
    held = {**program.state_dict, **program.constants}
    kernels = [value for value in held.values() if value.ndim == 4]
    assert len(kernels) == 14
    assert {value.dtype for value in kernels} == {torch.int8}
    assert not [name for name in calls(program) if "batch_norm" in name]


@pytest.mark.parametrize("name", ["torch_float", "torch_int8"])
def test_the_network_is_left_as_it_was(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, tmp_path: Path, name: str
) -> None:
    options = {**EXPORTERS.get(name).options, "package": "export"}
    given = job(name, tiny_spec, tmp_path, calibration=tiny_calibration, options=options)
    before = {key: value.clone() for key, value in given.network.state_dict().items()}
    EXPORTERS.get(name)().export(given)
    after = given.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not given.network.training
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


def test_int8_without_images_is_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="needs calibration images and got none"):
        EXPORTERS.get("torch_int8")().export(job("torch_int8", tiny_spec, tmp_path))


def test_an_unreadable_calibration_image_keeps_its_own_error(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    def images() -> Iterator[Images]:
        yield np.zeros((1, 3, 32, 32), np.float32)
        raise BadImage("0001.jpg is empty: remove it")

    threads = torch.get_num_threads()
    given = job("torch_int8", tiny_spec, tmp_path, calibration=images)
    with pytest.raises(BadImage, match=r"0001\.jpg is empty"):
        EXPORTERS.get("torch_int8")().export(given)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("torch_float", {"package": "zip"}, "option package=zip is unknown: give export or aoti"),
        ("torch_float", {"batch": 0}, "option batch=0 is out of range"),
        ("torch_int8", {"package": "zip"}, "give export or aoti"),
    ],
)
def test_impossible_options_are_named(
    tiny_spec: ModelSpec, name: str, options: dict[str, Scalar], words: str
) -> None:
    exporter = EXPORTERS.get(name)()
    refusal = exporter.unsupported(tiny_spec, {**exporter.options, **options})
    assert refusal is not None
    assert words in refusal


@pytest.mark.parametrize("name", ["torch_float", "torch_int8"])
def test_no_compiler_is_told_before_any_work(
    tiny_spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    exporter = EXPORTERS.get(name)()
    options: dict[str, Scalar] = {**exporter.options, "package": "aoti"}
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    refusal = exporter.unsupported(tiny_spec, options)
    assert refusal is not None
    assert "finds no 'g++'" in refusal
    assert "apt-get install g++" in refusal
    assert f"{name}:package=export" in refusal
    assert exporter.unsupported(tiny_spec, {**options, "package": "export"}) is None
    compiler = tmp_path / "g++"
    compiler.touch(mode=0o755)
    assert exporter.unsupported(tiny_spec, options) is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "finds no 'no-such-compiler'" in (exporter.unsupported(tiny_spec, options) or "")


def test_a_network_that_cannot_be_captured_fails_with_one_sentence(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    class Undecided(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum() > 0 else -image

    given = job("torch_float", tiny_spec, tmp_path, network=Undecided().eval())
    with pytest.raises(ExportFailed, match=r"^torch\.export cannot export tiny: \w+: ") as caught:
        EXPORTERS.get("torch_float")().export(given)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["torch_float", "torch_int8"])
def test_libraries_compute_what_the_network_computes(
    tiny_spec: ModelSpec,
    tiny_images: Images,
    tiny_calibration: Calibration,
    export_artifact: MakeArtifact,
    name: str,
) -> None:
    calibration = tiny_calibration if name == "torch_int8" else None
    artifact, folder = export_artifact(name, tiny_spec, calibration, package="aoti")
    assert artifact.format == "torch_aoti"
    assert any("CPU" in note for note in artifact.notes)
    got, expected = run(artifact, folder, tiny_images), reference(tiny_spec, tiny_images)
    quality = [sqnr_db(*pair) for pair in zip(got, expected, strict=True)]
    assert all(20 < one < 60 if name == "torch_int8" else one > 90 for one in quality)
    with zipfile.ZipFile(folder / "model.pt2") as package:
        assert not [entry for entry in package.namelist() if entry.endswith(".cpp")]


@pytest.mark.slow
@needs_compiler
def test_int8_library_holds_int8_weights(
    tiny_spec: ModelSpec, tiny_calibration: Calibration, export_artifact: MakeArtifact
) -> None:
    """Else convolutions run in float between conversions, correct and slow."""
    _, folder = export_artifact("torch_int8", tiny_spec, tiny_calibration, package="aoti")
    with zipfile.ZipFile(folder / "model.pt2") as package:
        (library,) = [name for name in package.namelist() if name.endswith(".so")]
        code = package.read(library)
    assert b"aoti_torch_cpu__qconv_pointwise_tensor" in code
    assert b"aoti_torch_cpu_convolution" not in code
    assert b"mkldnn__convolution" not in code


@pytest.mark.slow
def test_a_compiler_that_fails_is_one_sentence(
    tiny_spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "failing"
    compiler.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    compiler.chmod(0o755)
    inductor_config = pytest.importorskip("torch._inductor.config", reason="holds the compiler")
    monkeypatch.setattr(inductor_config.cpp, "cxx", (None, str(compiler)))
    folder = tmp_path / "made"
    folder.mkdir()
    options: dict[str, Scalar] = {**EXPORTERS.get("torch_float").options, "package": "aoti"}
    given = job("torch_float", tiny_spec, folder, options=options)
    with pytest.raises(ExportFailed, match=r"^AOTInductor cannot export tiny: ") as caught:
        EXPORTERS.get("torch_float")().export(given)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_mb2_float_gives_the_published_networks_outputs(
    golden_mb2: ModelSpec,
    golden_image: Images,
    export_artifact: MakeArtifact,
    shared: Path,
) -> None:
    artifact, folder = export_artifact("torch_float", golden_mb2)
    got = run(artifact, folder, golden_image)
    with np.load(shared / "reference" / "mb2-ssd-lite.npz") as golden:
        rows = golden["rows"]
        assert relative_error(got.logits[0, rows], golden["logits"]) < 1e-4
        assert relative_error(got.offsets[0, rows], golden["locations"]) < 1e-4
