"""TensorFlow Lite exports: what the file computes, and of which operators it is made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import BadImage, ExportFailed
from harness.interfaces import EXPORTERS, MODELS, Exported, ExportJob
from harness.records import ModelSpec, Scalar, TensorSpec

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
tensorflow = pytest.importorskip("tensorflow", reason="the converter is TensorFlow's")
litert = pytest.importorskip("ai_edge_litert.interpreter", reason="runs what was exported")

from torch import nn  # noqa: E402  # after the skip

from exporters._tf_file import Operator, operator_names, operators, parse  # noqa: E402  # after the skip
from exporters._tf_lite import FILE  # noqa: E402  # after the skip
from exporters._tf_ranges import observe  # noqa: E402  # after the skip

Images = NDArray[np.float32]
Calibration = Callable[[], Iterator[Images]]


class Made(NamedTuple):
    """One export: what the exporter answered, and the file."""

    exported: Exported
    path: Path

    @property
    def operators(self) -> list[Operator]:
        return operators(self.path.read_bytes())


def make(
    name: str,
    spec: ModelSpec,
    folder: Path,
    *,
    network: Any = None,
    calibration: Calibration | None = None,
    **options: Scalar,
) -> Made:
    exporter = EXPORTERS.get(name)()
    job = ExportJob(
        spec=spec,
        network=spec.build() if network is None else network,
        options={**exporter.options, **options},
        calibration=calibration,
        folder=folder,
    )
    return Made(exporter.export(job), folder / FILE)


@pytest.fixture(scope="module")
def float_file(tiny_spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("tflite_float", tiny_spec, tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module", params=["float32", "int8"])
def int8_file(
    request: pytest.FixtureRequest,
    tiny_spec: ModelSpec,
    tiny_calibration: Calibration,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    folder = tmp_path_factory.mktemp("int8")
    return make("tflite_int8", tiny_spec, folder, calibration=tiny_calibration, io=request.param)


def run(made: Made, images: Images) -> list[Images]:
    """Real-valued logits and offsets for float32 NCHW images, by the names in the manifest."""
    interpreter = litert.Interpreter(model_path=str(made.path))
    interpreter.allocate_tensors()
    details = {
        detail["name"]: detail["index"]
        for detail in interpreter.get_input_details() + interpreter.get_output_details()
    }
    (image_spec,) = made.exported.inputs
    answers: list[list[Images]] = []
    for image in images:
        values = image[None].transpose(0, 2, 3, 1)
        interpreter.set_tensor(details[image_spec.name], quantize(values, image_spec))
        interpreter.invoke()
        answers.append(
            [
                real(interpreter.get_tensor(details[output.name]), output)
                for output in made.exported.outputs
            ]
        )
    return [np.concatenate(head) for head in zip(*answers, strict=True)]


def quantize(values: Images, tensor: TensorSpec) -> NDArray[Any]:
    if tensor.scale is None or tensor.zero_point is None:
        return values
    steps = np.rint(values / tensor.scale) + tensor.zero_point
    return np.clip(steps, -128, 127).astype(np.int8)


def real(values: NDArray[Any], tensor: TensorSpec) -> Images:
    if tensor.scale is None or tensor.zero_point is None:
        return values
    return ((values.astype(np.int32) - tensor.zero_point) * tensor.scale).astype(np.float32)


def expect(network: Any, images: Images) -> list[Images]:
    with torch.inference_mode():
        return [head.numpy() for head in network(torch.from_numpy(images))]


def sqnr_db(reference: Images, got: Images) -> float:
    noise = np.square(reference.astype(np.float64) - got).sum()
    return float(10 * np.log10(np.square(reference.astype(np.float64)).sum() / noise))


def test_float_file_computes_what_the_network_does(
    float_file: Made, tiny_spec: ModelSpec, tiny_images: Images
) -> None:
    reference = expect(tiny_spec.build(), tiny_images)
    for head, got in zip(reference, run(float_file, tiny_images), strict=True):
        assert head.shape == got.shape
        assert sqnr_db(head, got) >= 100


def test_int8_file_is_close_to_the_network(
    int8_file: Made, tiny_spec: ModelSpec, tiny_images: Images
) -> None:
    reference = expect(tiny_spec.build(), tiny_images)
    logits, offsets = run(int8_file, tiny_images)
    assert sqnr_db(reference[0], logits) >= 21  # 23.0 measured
    assert sqnr_db(reference[1], offsets) >= 22  # 24.1 measured


def test_float_file_holds_no_other_operators_than_the_network(float_file: Made) -> None:
    """Batch norms folded, ReLU6 fused, no transposes; PAD only at symmetric stride 2."""
    counted = Counter((operator.name, operator.activation) for operator in float_file.operators)
    assert counted == {
        ("PAD", "NONE"): 3,
        ("CONV_2D", "RELU6"): 4,
        ("DEPTHWISE_CONV_2D", "RELU6"): 5,
        ("CONV_2D", "NONE"): 5,
        ("ADD", "NONE"): 1,
        ("RESHAPE", "NONE"): 4,
        ("CONCATENATION", "NONE"): 2,
    }


def test_int8_file_computes_in_integers_only(int8_file: Made, float_file: Made) -> None:
    inner = [
        operator
        for operator in int8_file.operators
        if operator.name not in ("QUANTIZE", "DEQUANTIZE")
    ]
    assert [operator.name for operator in inner] == [
        operator.name for operator in float_file.operators
    ]
    for operator in inner:
        assert operator.outputs == ("INT8",)
        assert set(operator.inputs) <= {"INT8", "INT32"}
    edges = len(int8_file.operators) - len(inner)
    assert edges == (3 if int8_file.exported.inputs[0].dtype == "float32" else 0)


def test_int8_weights_have_a_scale_per_output_channel(int8_file: Made) -> None:
    interpreter = litert.Interpreter(model_path=str(int8_file.path))
    constants = [
        detail["quantization_parameters"]["scales"]
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] is np.int8 and len(detail["quantization_parameters"]["scales"]) > 1
    ]
    convolutions = [op for op in int8_file.operators if "CONV_2D" in op.name]
    assert len(constants) == len(convolutions)
    assert all(len(set(scales.tolist())) == len(scales) for scales in constants)


def test_signature_and_manifest_name_the_same_tensors(float_file: Made, int8_file: Made) -> None:
    for made in (float_file, int8_file):
        interpreter = litert.Interpreter(model_path=str(made.path))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["image"], "outputs": ["logits", "offsets"]}
        }
        runner = interpreter.get_signature_runner()
        details = {**runner.get_input_details(), **runner.get_output_details()}
        tensors = {
            "image": made.exported.inputs[0],
            "logits": made.exported.outputs[0],
            "offsets": made.exported.outputs[1],
        }
        for key, tensor in tensors.items():
            assert tensor.name == details[key]["name"]
            assert tensor.shape == tuple(details[key]["shape"])
            assert tensor.dtype == np.dtype(details[key]["dtype"]).name
            assert (tensor.scale or 0, tensor.zero_point or 0) == pytest.approx(
                details[key]["quantization"]
            )
        assert [tensor.layout for tensor in tensors.values()] == ["NHWC", "NPC", "NPC"]


def test_io_int8_quantizes_the_tensors_and_float32_does_not(int8_file: Made) -> None:
    tensors = [*int8_file.exported.inputs, *int8_file.exported.outputs]
    quantized = [tensor.scale is not None for tensor in tensors]
    if tensors[0].dtype == "int8":
        assert [tensor.dtype for tensor in tensors] == ["int8"] * 3
        assert all(quantized)
    else:
        assert [tensor.dtype for tensor in tensors] == ["float32"] * 3
        assert not any(quantized)


def test_io_of_another_type_is_unsupported(tiny_spec: ModelSpec) -> None:
    exporter = EXPORTERS.get("tflite_int8")()
    assert exporter.unsupported(tiny_spec, {**exporter.options, "io": "int8"}) is None
    reason = exporter.unsupported(tiny_spec, {**exporter.options, "io": "uint8"})
    assert reason == "option io of tflite_int8 is float32 or int8, not 'uint8'"


@pytest.mark.parametrize("calibration", [None, lambda: iter(())], ids=["none", "empty"])
def test_int8_without_images_is_refused(
    calibration: Calibration | None, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    with pytest.raises(ExportFailed, match="calibration images"):
        make("tflite_int8", tiny_spec, tmp_path, calibration=calibration)


def test_a_calibration_image_that_cannot_be_read_says_so(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    def broken() -> Iterator[Images]:
        raise BadImage("image a.jpg is empty")
        yield

    with pytest.raises(BadImage, match=r"a\.jpg is empty"):
        make("tflite_int8", tiny_spec, tmp_path, calibration=broken)


def test_ranges_are_seen_before_an_operator_in_place_overwrites_them(
    float_file: Made, tiny_spec: ModelSpec, tiny_images: Images
) -> None:
    """TensorFlow's calibrator gives the input of the residual addition the range of the sum."""
    data = float_file.path.read_bytes()
    model = parse(data)
    (graph,) = model.subgraphs
    addition = graph.operators[operator_names(model).index("ADD")]
    tensors = [int(index) for index in (*addition.inputs, *addition.outputs)]
    images = (image[None].transpose(0, 2, 3, 1).copy() for image in tiny_images)
    found = observe(data, tensors, images)

    network = tiny_spec.build()
    with torch.inference_mode():
        stem = network.stem(torch.from_numpy(tiny_images))
        branch = network.bottleneck(stem)
    expected = {
        (min(0.0, float(tensor.min())), float(tensor.max()))
        for tensor in (stem, branch, stem + branch)
    }
    got = {(observed.low, observed.high) for observed in found.values()}
    assert sorted(got) == [pytest.approx(pair, rel=1e-4) for pair in sorted(expected)]


QUIET_EXPORT = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from torch import nn
from harness.interfaces import EXPORTERS, ExportJob
from harness.records import Decoding

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x), self.conv(x) + 1

spec = SimpleNamespace(name="quiet", image=SimpleNamespace(height=8, width=8),
                       priors=np.zeros((4, 4), np.float32), labels=("background", "one"),
                       decoding=Decoding())
exporter = EXPORTERS.get("tflite_float")
job = ExportJob(spec=spec, network=Network().eval(), options=exporter.options, calibration=None,
                folder=Path(sys.argv[1]))
exporter().export(job)
"""


@pytest.mark.slow
def test_export_prints_nothing_and_leaves_the_environment_alone(tmp_path: Path) -> None:
    script = QUIET_EXPORT + "import os; print(sorted(key for key in os.environ if 'TF_' in key))"
    plain = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env=plain,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", "[]\n", 0)


def warmed(spec: ModelSpec) -> Any:
    """The model with seeded weights and batch-norm statistics of its own activations."""
    generator = np.random.default_rng(11)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = spec.build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    size = (4, 3, spec.image.height, spec.image.width)
    with torch.no_grad():
        network.train()(torch.from_numpy(generator.normal(0, 1, size).astype(np.float32)))
    return network.eval()


SHIPPED: Mapping[str, tuple[dict[str, Scalar], dict[tuple[str, str], int]]] = {
    "mb2_ssd_lite": (
        {},
        {
            ("CONV_2D", "NONE"): 33,
            ("CONV_2D", "RELU6"): 22,
            ("DEPTHWISE_CONV_2D", "RELU6"): 31,
            ("ADD", "NONE"): 10,
            ("PAD", "NONE"): 5,
            ("RESHAPE", "NONE"): 12,
            ("CONCATENATION", "NONE"): 2,
        },
    ),
    "etinynet_ssd_lite": (
        {"width": 0.35},
        {
            ("CONV_2D", "NONE"): 18,
            ("CONV_2D", "RELU"): 18,
            ("DEPTHWISE_CONV_2D", "NONE"): 14,
            ("DEPTHWISE_CONV_2D", "RELU"): 30,
            ("ADD", "NONE"): 44,
            ("MAX_POOL_2D", "NONE"): 1,
            ("PAD", "NONE"): 7,
            ("RESHAPE", "NONE"): 12,
            ("CONCATENATION", "NONE"): 2,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_export_exactly(name: str, tmp_path: Path) -> None:
    options, counts = SHIPPED[name]
    spec = MODELS.get(name)(("background", "thing", "other"), **options)
    network = warmed(spec)
    made = make("tflite_float", spec, tmp_path, network=network)
    counted = Counter((operator.name, operator.activation) for operator in made.operators)
    assert counted == counts
    size = (2, 3, spec.image.height, spec.image.width)
    images = np.random.default_rng(12).normal(0, 1, size).astype(np.float32)
    for head, got in zip(expect(network, images), run(made, images), strict=True):
        assert sqnr_db(head, got) >= 85  # random weights amplify rounding: 93 measured
