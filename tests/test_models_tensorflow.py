"""Weights that TensorFlow wrote: read whole, placed right, refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from harness import cli
from harness.errors import BadCheckpoint
from harness.extras import tensorflow
from harness.interfaces import MODELS
from models._checkpoint import load_weights
from models._tf_import import assemble

pytest.importorskip("tensorflow", reason="it writes what is read here")

pytestmark = pytest.mark.slow

MODEL = "ssdlite_mobilenet_v2_coco"
CLASSES = 4
FEATURES = "FeatureExtractor/MobilenetV2"
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
STAGES += ((6, 160, 3, 2), (6, 320, 1, 1))


def build(classes: int = CLASSES) -> nn.Module:
    labels = ("background", *(f"class {number}" for number in range(1, classes)))
    network: nn.Module = MODELS.get(MODEL)(labels).build()
    return network


class Original:
    """The detector written in TensorFlow's own operators, after its paper and variable names.

    Nothing of it comes from the network under test. Variables are random.
    """

    def __init__(self, tf: Any, classes: int) -> None:
        self.tf, self.classes = tf, classes
        self.rng = np.random.default_rng(3)

    def variable(self, name: str, shape: tuple[int, ...]) -> Any:
        last = name.rpartition("/")[2]
        if last in ("gamma", "moving_variance"):
            value = self.rng.uniform(0.5, 1.5, shape)
        elif "weights" in last:
            fan_in = 9 if last == "depthwise_weights" else np.prod(shape[:3])
            value = self.rng.normal(0, np.sqrt(2 / fan_in), shape)
        else:
            value = self.rng.normal(0, 0.1, shape)
        made = self.tf.compat.v1.get_variable(name, initializer=value.astype(np.float32))
        return self.tf.identity(made, name=f"{name}/read")

    def normal(self, name: str, x: Any) -> Any:
        """Batch norm and ReLU6."""
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        parts = [self.variable(f"{name}/BatchNorm/{part}", (x.shape[-1],)) for part in names]
        gamma, beta, mean, variance = parts
        return self.tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)

    def conv(self, name: str, x: Any, outputs: int, kernel: int = 1, stride: int = 1) -> Any:
        weights = self.variable(f"{name}/weights", (kernel, kernel, x.shape[-1], outputs))
        return self.normal(name, self.tf.nn.conv2d(x, weights, stride, "SAME"))

    def depthwise(self, name: str, x: Any, stride: int = 1) -> Any:
        weights = self.variable(f"{name}/depthwise_weights", (3, 3, x.shape[-1], 1))
        steps = [1, stride, stride, 1]
        return self.tf.nn.depthwise_conv2d(x, weights, steps, "SAME")

    def __call__(self, image: Any) -> tuple[Any, Any]:
        relu6, logits, codes = self.tf.nn.relu6, [], []
        for number, feature in enumerate(self.maps(image)):
            for kind, values, joined in (
                ("BoxEncoding", 4, codes),
                ("Class", self.classes, logits),
            ):
                name = f"BoxPredictor_{number}/{kind}Predictor"
                x = self.depthwise(f"{name}_depthwise", feature)
                x = relu6(self.normal(f"{name}_depthwise", x))
                shapes = 3 if number == 0 else 6
                size = (1, 1, x.shape[-1], shapes * values)
                x = self.tf.nn.conv2d(x, self.variable(f"{name}/weights", size), 1, "SAME")
                x = x + self.variable(f"{name}/biases", (shapes * values,))
                joined.append(self.tf.reshape(x, (1, -1, values)))
        return self.tf.concat(logits, 1, name="logits"), self.tf.concat(codes, 1, name="codes")

    def maps(self, image: Any) -> Iterator[Any]:
        relu6 = self.tf.nn.relu6
        x = relu6(self.conv(f"{FEATURES}/Conv", image, 32, 3, 2))
        number = 0
        for expansion, outputs, repeats, first in STAGES:
            for repeat in range(repeats):
                name = f"{FEATURES}/expanded_conv" + (f"_{number}" if number else "")
                y = x
                if expansion > 1:
                    y = relu6(self.conv(f"{name}/expand", x, x.shape[-1] * expansion))
                if number == 13:
                    yield y
                y = self.depthwise(f"{name}/depthwise", y, first if repeat == 0 else 1)
                y = relu6(self.normal(f"{name}/depthwise", y))
                y = self.conv(f"{name}/project", y, outputs)
                x = x + y if y.shape == x.shape else y
                number += 1
        x = relu6(self.conv(f"{FEATURES}/Conv_1", x, 1280))
        yield x
        for number, (hidden, outputs) in enumerate(((256, 512), (128, 256), (128, 256), (64, 128))):
            x = relu6(
                self.conv(f"{FEATURES}/layer_19_1_Conv2d_{number + 2}_1x1_{hidden}", x, hidden)
            )
            name = f"{FEATURES}/layer_19_2_Conv2d_{number + 2}_3x3_s2_{outputs}"
            x = self.depthwise(f"{name}_depthwise", x, 2)
            x = relu6(self.normal(f"{name}_depthwise", x))
            x = relu6(self.conv(name, x, outputs))
            yield x


class Written:
    """What TensorFlow wrote of an original, and what it answers to an image."""

    def __init__(self, folder: Path) -> None:
        self.frozen, self.saved = folder / "frozen_inference_graph.pb", folder / "saved_model"
        self.index = folder / "model.ckpt.index"
        self.image = np.random.default_rng(5).normal(0, 1, (1, 300, 300, 3)).astype(np.float32)
        tf = tensorflow()
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph, v1.Session() as session:
            image = v1.placeholder(tf.float32, (1, 300, 300, 3), name="image")
            answers = Original(tf, CLASSES)(image)
            session.run(v1.global_variables_initializer())
            self.logits, self.codes = session.run(answers, {image: self.image})
            self.variables = session.run({one.op.name: one for one in v1.global_variables()})
            names = [answer.op.name for answer in answers]
            freeze = v1.graph_util.convert_variables_to_constants
            self.graph = freeze(session, graph.as_graph_def(), names)
            v1.train.Saver().save(session, str(folder / "model.ckpt"))
            inputs = {"image": image}
            v1.saved_model.simple_save(session, str(self.saved), inputs, {"logits": answers[0]})
        self.frozen.write_bytes(self.graph.SerializeToString())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("original"))


def answers(network: nn.Module, image: NDArray[np.float32]) -> tuple[Any, Any]:
    with torch.no_grad():
        logits, offsets = network(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    return logits.numpy(), offsets.numpy()[..., [1, 0, 3, 2]]


def assert_same(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("kind", ["frozen", "saved", "index"])
def test_tensorflow_s_answers_are_ours(written: Written, kind: str) -> None:
    network = build()
    assert len(written.variables) == 404
    load_weights(network, getattr(written, kind))
    logits, codes = answers(network, written.image)
    assert_same(logits, written.logits)
    assert_same(codes, written.codes)


def test_a_frozen_graph_becomes_a_checkpoint(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, output = tmp_path / "labels.txt", tmp_path / "new" / "coco.safetensors"
    labels.write_text("background\na\nb\nc\n", encoding="utf-8")
    command = ["convert", MODEL, str(written.frozen), "-o", str(output), "--labels", str(labels)]
    assert cli.main(command) == 0
    assert "4 classes" in capsys.readouterr().out
    manifest = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert manifest["labels"] == ["background", "a", "b", "c"]
    assert manifest["converted_from"]["name"] == "frozen_inference_graph.pb"
    network = build()
    load_weights(network, output)
    assert_same(answers(network, written.image)[0], written.logits)


def test_conversion_needs_to_know_the_classes(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "coco.safetensors"
    assert cli.main(["convert", MODEL, str(written.frozen), "-o", str(output)]) == 2
    assert "give the labels it was trained with" in capsys.readouterr().err
    assert cli.main(["convert", "mb2_ssd_lite_256", str(written.frozen), "-o", str(output)]) == 2
    assert "the classes of this mb2_ssd_lite_256 are unknown" in capsys.readouterr().err
    assert cli.main(["convert", MODEL, str(written.frozen), "-o", "coco.pth"]) == 2
    assert "end it in .safetensors" in capsys.readouterr().err
    assert not output.exists()


FAULTS = {
    "missing": "lacks 1 of the 404 variables of this model, the first is"
    " BoxPredictor_3/ClassPredictor/biases",
    "more": "1 variables that this model does not have, the first is Extra/weights",
    "shape": r"has FeatureExtractor/MobilenetV2/Conv/weights in the shape \(3, 3, 3, 16\)",
    "nan": "values that are not finite in FeatureExtractor/MobilenetV2/Conv_1/BatchNorm/gamma",
    "rank": r"expanded_conv/project/weights in the shape \(512,\)",
}


@pytest.mark.parametrize(("fault", "says"), FAULTS.items(), ids=list(FAULTS))
def test_wrong_variables_are_named(written: Written, fault: str, says: str) -> None:
    values = dict(written.variables)
    if fault == "missing":
        del values["BoxPredictor_3/ClassPredictor/biases"]
    elif fault == "more":
        values["Extra/weights"] = np.zeros(3, np.float32)
    elif fault == "shape":
        name = f"{FEATURES}/Conv/weights"
        values[name] = values[name][..., :16]
    elif fault == "nan":
        values[f"{FEATURES}/Conv_1/BatchNorm/gamma"] = np.full(1280, np.nan, np.float32)
    else:
        name = f"{FEATURES}/expanded_conv/project/weights"
        values[name] = values[name].ravel()
    with pytest.raises(BadCheckpoint, match=says) as caught:
        assemble(build(), values, Path("graph.pb"))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_graph_are_refused(written: Written, tmp_path: Path) -> None:
    network = build()
    damaged = tmp_path / "damaged.pb"
    damaged.write_bytes(written.frozen.read_bytes()[:-1000])
    empty = tmp_path / "empty.pb"
    empty.write_bytes(b"")
    index = tmp_path / "model.ckpt.index"
    index.write_bytes(written.index.read_bytes())  # without its data file
    saved = tmp_path / "saved_model.pb"
    saved.write_bytes(b"not a graph")
    for path, says in (
        (damaged, "damaged or nothing that TensorFlow wrote"),
        (empty, "lacks 404 of the 404 variables"),
        (index, "damaged or nothing that TensorFlow wrote"),
        (saved, "damaged or nothing that TensorFlow wrote"),
        (tmp_path / "no.pb", "does not exist"),
    ):
        with pytest.raises(BadCheckpoint, match=says) as caught:
            load_weights(network, path)
        assert "\n" not in str(caught.value)


def test_other_models_have_no_original_in_tensorflow(written: Written) -> None:
    other = MODELS.get("etinynet_ssd_lite")(("background", "a"), width=0.35).build()
    with pytest.raises(BadCheckpoint, match="this model has no original there"):
        load_weights(other, written.frozen)


def official(folder: Path, target: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The published graph with random values, frozen to ``target``: image, logits, box codes."""
    tf = tensorflow()
    v1 = tf.compat.v1
    rng = np.random.default_rng(11)
    image = rng.normal(0, 1, (1, 300, 300, 3)).astype(np.float32)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(str(folder / "model.ckpt.meta"), clear_devices=True)
        assigns, values = [], {}
        for operation in graph.get_operations():
            if operation.type != "VariableV2" or operation.name == "global_step":
                continue
            shape = operation.outputs[0].shape.as_list()
            last = operation.name.rpartition("/")[2]
            if last in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, shape)
            elif "weights" in last:
                fan_in = 9 if last == "depthwise_weights" else np.prod(shape[:3])
                value = rng.normal(0, np.sqrt(2 / fan_in), shape)
            else:
                value = rng.normal(0, 0.1, shape)
            assign = graph.get_operation_by_name(f"{operation.name}/Assign")
            assigns.append(assign)
            values[assign.inputs[1]] = value.astype(np.float32)
        session.run(assigns, values)
        outputs = ["concat_1:0", "Squeeze:0"]
        logits, codes = session.run(outputs, {"Preprocessor/sub:0": image})
        freeze = v1.graph_util.convert_variables_to_constants
        frozen = freeze(session, graph.as_graph_def(), ["concat_1", "Squeeze"])
    target.write_bytes(frozen.SerializeToString())
    return image, logits, codes


def test_the_published_graph_answers_as_ours(shared: Path, tmp_path: Path) -> None:
    frozen = tmp_path / "frozen_inference_graph.pb"
    image, logits, codes = official(shared / "data" / MODEL, frozen)
    network = build(91)
    load_weights(network, frozen)
    ours, boxes = answers(network, image)
    assert_same(ours, logits)
    assert_same(boxes, codes)
