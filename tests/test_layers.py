"""Layer by layer: names through every export, the planted fault named, layers kept in float."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from exporters._tvm_planes import Grid
from harness import artifacts
from harness.commands.export import keeping
from harness.commands.layers import show_layers, table
from harness.errors import ExportFailed, ParityFailed, Unsupported
from harness.interfaces import RUNNERS, RawOutputs, RunOptions
from harness.layer_records import LayerOutput
from harness.layers import compare_layers, ranked, suggest
from harness.records import Artifact, ModelSpec, Scalar, encode
from runners._trace_tvm import take

Images = NDArray[np.float32]
Layers = dict[str, NDArray[Any]]
RUNS = {
    "torch_float": "torch_cpu",
    "torch_int8": "torch_cpu",
    "onnx_float": "ort_cpu",
    "onnx_int8": "ort_cpu",
    "tflite_float": "litert_cpu",
    "tflite_int8": "litert_cpu",
    "tvm_dense": "tvm_cpu",
    "tvm_sparse": "tvm_cpu",
}
FUSED = {"tvm_dense": {"bottleneck.0.0", "bottleneck.2"}, "tvm_sparse": {"bottleneck.0.0"}}
"""Layers that share a kernel with the depthwise convolution behind them."""
KEPT = "bottleneck.*/box_heads.1"
Trace = Callable[..., list[Layers]]


@pytest.fixture(scope="session")
def trace(
    tiny_spec: ModelSpec, tiny_calibration: Any, tiny_images: Images, export_artifact: Any
) -> Trace:
    """``trace(exporter, **options)``: what the layers answer to two images."""

    def traced(name: str, **options: Scalar) -> list[Layers]:
        if name == "torch_int8":
            options["package"] = "export"
        calibration = tiny_calibration if name.endswith("int8") else None
        artifact, folder = export_artifact(name, tiny_spec, calibration, **options)
        return shown(artifact, folder, tiny_images[:2])

    return traced


def shown(artifact: Artifact, folder: Path, images: Images) -> list[Layers]:
    fed = images.transpose(0, 2, 3, 1) if artifact.inputs[0].layout == "NHWC" else images
    prepared = (np.ascontiguousarray(image[None]) for image in fed)
    runner = RUNNERS.get(RUNS[artifact.exporter])()
    return [dict(one) for one in runner.trace(artifact, folder, RunOptions(), prepared)]


@pytest.fixture(scope="session")
def reference(tiny_spec: ModelSpec, tiny_images: Images) -> list[Layers]:
    """Outputs of the network's own convolutions, with their batch norm and ReLU6, by hooks."""
    torch = pytest.importorskip("torch", reason="runs the network")
    network, seen = tiny_spec.build(), {}
    ends = {}
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            last = name
        if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d | torch.nn.ReLU6):
            ends[last] = layer
    for name, layer in ends.items():
        layer.register_forward_hook(lambda _l, _i, y, name=name: seen.update({name: y.clone()}))
    found = []
    with torch.no_grad():
        for image in tiny_images[:2]:
            network(torch.from_numpy(image[None]))
            found.append({name: values.numpy() for name, values in seen.items()})
    return found


@pytest.mark.parametrize("name", RUNS)
def test_every_runtime_shows_every_layer_by_its_name(
    name: str, trace: Trace, reference: list[Layers]
) -> None:
    found = compare_layers(reference, trace(name))
    assert set(found) == set(reference[0]) - FUSED.get(name, set())
    assert len(reference[0]) == 14
    least, most = (90, 201) if not name.endswith("int8") else (14, 60)
    assert all(least < value < most for value in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx_int8", "tflite_int8", "torch_int8"])
def test_layers_kept_in_float_are_closer(name: str, trace: Trace, reference: list[Layers]) -> None:
    plain, kept = (compare_layers(reference, trace(name, **o)) for o in ({}, {"keep_float": KEPT}))
    for layer in ("bottleneck.0.0", "bottleneck.1.0", "bottleneck.2", "box_heads.1"):
        assert kept[layer] > plain[layer]
    assert kept["bottleneck.2"] > plain["bottleneck.2"] + 1.5


def test_kept_layers_have_float_weights(
    tiny_spec: ModelSpec, tiny_calibration: Any, export_artifact: Any
) -> None:
    onnx = pytest.importorskip("onnx", reason="reads the file")
    _, folder = export_artifact("onnx_int8", tiny_spec, tiny_calibration, keep_float=KEPT)
    model = onnx.load(str(folder / "model.onnx"))
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    real = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    assert real == {"bottleneck.0.0", "bottleneck.1.0", "bottleneck.2", "box_heads.1"}


@pytest.mark.slow
def test_kept_layers_are_float_operators(
    tiny_spec: ModelSpec, tiny_calibration: Any, export_artifact: Any
) -> None:
    pytest.importorskip("tensorflow", reason="reads the file")
    from exporters._tf_file import CONVOLUTIONS, operators

    _, folder = export_artifact("tflite_int8", tiny_spec, tiny_calibration, keep_float=KEPT)
    found = [
        operator.outputs
        for operator in operators((folder / "model.tflite").read_bytes())
        if operator.name in CONVOLUTIONS
    ]
    assert found.count(("FLOAT32",)) == 4
    assert found.count(("INT8",)) == 10


def test_a_layer_that_does_not_exist_is_named(
    tiny_spec: ModelSpec, tiny_calibration: Any, export_artifact: Any
) -> None:
    with pytest.raises(ExportFailed, match=r"no convolution 'botleneck\.2': did you mean"):
        export_artifact("onnx_int8", tiny_spec, tiny_calibration, keep_float="botleneck.2")


def test_a_broken_layer_is_the_first_bad_one(
    tiny_spec: ModelSpec,
    tiny_calibration: Any,
    tiny_images: Images,
    export_artifact: Any,
    reference: list[Layers],
    tmp_path: Path,
) -> None:
    """The scale of one layer's weights is halved in the file: a fault that no output names."""
    onnx = pytest.importorskip("onnx", reason="plants the fault")
    artifact, folder = export_artifact("onnx_int8", tiny_spec, tiny_calibration)
    model = onnx.load(str(folder / "model.onnx"))
    for constant in model.graph.initializer:
        if constant.name == "first.0.0.weight_scale":
            halved = onnx.numpy_helper.to_array(constant) / 2
            constant.CopyFrom(onnx.numpy_helper.from_array(halved, constant.name))
    onnx.save(model, str(tmp_path / "model.onnx"))
    found = suggest(compare_layers(reference, shown(artifact, tmp_path, tiny_images[:2])))
    assert found.first_bad == "first.0.0"
    assert found.keep[0] == "first.0.0"


def test_a_compiled_library_shows_no_layers(tmp_path: Path) -> None:
    compiled: Any = argparse.Namespace(format="torch_aoti")
    with pytest.raises(Unsupported, match="compare the export with package=export"):
        RUNNERS.get("torch_cpu")().trace(compiled, tmp_path, RunOptions(), [])
    with pytest.raises(Unsupported, match="null does not show what its layers answer"):
        RUNNERS.get("null")().trace(compiled, tmp_path, RunOptions(), [])


def test_figures_by_hand() -> None:
    one, two = np.full((1, 1, 1, 2), 2.0), np.full((1, 1, 1, 2), 4.0)
    found = compare_layers([{"a": one, "b": two}] * 2, [{"a": one + 0.2, "b": two + 4}] * 2)
    assert found == pytest.approx({"a": 20.0, "b": 0.0})
    assert suggest(found) == ("b", ("b",))
    assert ranked({"a": 30.0, "b": 29.0, "c": 20.0}) == [("c", 9.0), ("b", 1.0), ("a", 0.0)]
    assert suggest({"a": 30.0, "b": 29.0}) == (None, ())
    assert suggest({"a": 14.0, "b": 13.0}) == ("a", ("b",))


def test_exports_of_different_models_are_refused() -> None:
    one = np.ones((1, 1, 2, 2))
    with pytest.raises(ParityFailed, match="no layer in common"):
        compare_layers([{"a": one}], [{"b": one}])
    with pytest.raises(ParityFailed, match="layer a has shape"):
        compare_layers([{"a": one}], [{"a": one[:, :, :1]}])


def test_the_command_prints_a_row_for_each_layer(
    tiny_spec: ModelSpec,
    tiny_calibration: Any,
    export_artifact: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = []
    for name, calibration in (("onnx_float", None), ("onnx_int8", tiny_calibration)):
        artifact, folder = export_artifact(name, tiny_spec, calibration)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
        answers = RawOutputs(np.zeros((2, 160, 5), np.float32), np.zeros((2, 160, 4), np.float32))
        copy = tmp_path / name
        copy.mkdir()
        (copy / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
        artifacts.write_extras(copy, tiny_spec.priors, artifacts.Golden(images, answers))
        files = artifacts.entries(copy, ["model.onnx"])
        (copy / artifacts.MANIFEST).write_bytes(
            encode(msgspec.structs.replace(artifact, files=files))
        )
        folders.append(copy)
    given = argparse.Namespace(artifact=folders[0], layers=folders[1:], runners=None, json=False)
    assert show_layers(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 14 + 1
    assert lines[1].split()[0] == "stem.0"
    assert lines[-1].startswith("tiny/onnx_int8/")


def test_a_layer_that_one_export_lacks_has_a_dash() -> None:
    rows = list(table({"x": {"a": 1.0, "b": 2.0}, "y": {"a": 3.0}}))
    assert [row.split() for row in rows[1:]] == [["a", "1.0", "3.0"], ["b", "2.0", "–"]]


def test_layers_become_an_option_of_the_exporter() -> None:
    assert keeping("onnx_int8", ["a.0", "b.*"]) == "onnx_int8:keep_float=a.0/b.*"
    assert keeping("onnx_int8:opset=20", ["a"]) == "onnx_int8:keep_float=a,opset=20"


def test_a_result_is_taken_out_of_its_buffer() -> None:
    values = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    where = LayerOutput(
        layer="a", kernel="k", call=0, channels=5, height=2, width=3, row=3, plane=6, lanes=4
    )
    blocked = np.pad(values, ((0, 3), (0, 0), (0, 0))).reshape(2, 4, 2, 3).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(take(where, [np.ravel(blocked)])[0], values)
    grid = Grid(height=2, width=3, margin=1, lanes=4)
    replace = msgspec.structs.replace
    planes = replace(where, lanes=1, row=grid.pitch, plane=grid.size, offset=grid.origin, added=0)
    added = grid.fill(np.ones_like(values))
    np.testing.assert_array_equal(take(planes, [added, grid.fill(values + 1)])[0], values)


def test_a_module_that_names_no_layers_is_refused(
    tiny_spec: ModelSpec, export_artifact: Any
) -> None:
    artifact, folder = export_artifact("tvm_dense", tiny_spec, None)
    older = msgspec.structs.replace(artifact, layer_outputs=())
    with pytest.raises(Unsupported, match="does not say where its layers' results lie"):
        RUNNERS.get("tvm_cpu")().trace(older, folder, RunOptions(), [])
