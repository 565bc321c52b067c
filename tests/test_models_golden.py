"""Our networks are the published ones: same keys, same layers, same outputs, same priors."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.support import deterministic
from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import ModelSpec, Scalar
from models._checkpoint import load_weights
from models._tf_import import assemble

RENAMED = {"hswish()": "Hardswish()", "hsigmoid()": "Hardsigmoid()"}
"""The published code has modules of its own for what torch has by now."""
WIDTHS: list[Scalar] = [1.0, 0.75, 0.5, 0.35]
PUBLISHED: list[tuple[str, str, dict[str, Scalar]]] = [
    ("vgg16-ssd", "vgg16_ssd", {}),
    ("mb1-ssd", "mb1_ssd", {}),
    ("mb1-ssd-lite", "mb1_ssd_lite", {}),
    ("mb2-ssd-lite", "mb2_ssd_lite", {}),
    ("mb3-large-ssd-lite", "mb3_large_ssd_lite", {}),
    ("mb3-small-ssd-lite", "mb3_small_ssd_lite", {}),
    ("sq-ssd-lite", "sq_ssd_lite", {}),
    ("squeezenet1_1-ssd-lite-256", "squeezenet1_1_ssd_lite", {}),
    ("rfb-320-face", "rfb_320_face", {}),
    ("slim-320-face", "slim_320_face", {}),
    *((f"etinynet-{width}-ssd-lite", "etinynet_ssd_lite", {"width": width}) for width in WIDTHS),
]
each_published = pytest.mark.parametrize(
    ("golden", "model", "options"), PUBLISHED, ids=[golden for golden, _, _ in PUBLISHED]
)


def facts_of(shared: Path, golden: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((shared / "reference" / f"{golden}.json").read_text())
    return facts


def size_of(facts: dict[str, Any]) -> tuple[int, int]:
    """Height and width."""
    square = facts.get("input_size")
    return facts.get("input_height", square), facts.get("input_width", square)


def make(model: str, classes: int, options: dict[str, Scalar]) -> ModelSpec:
    labels = ("background", *(f"class {i}" for i in range(1, classes)))
    return MODELS.get(model)(labels, **options)


def filled(spec: ModelSpec, shared: Path, facts: dict[str, Any]) -> nn.Module:
    """The network with the weights that its golden outputs were made with."""
    network: nn.Module = spec.build()
    if "weights" in facts:  # the real checkpoint
        load_weights(network, shared / "data" / "weights" / facts["checkpoint"])
        return network
    network.load_state_dict(
        {
            key: torch.from_numpy(deterministic(key, tuple(value.shape)))
            for key, value in network.state_dict().items()
        }
    )
    return network


@each_published
def test_state_dict_is_the_published_one(
    shared: Path, golden: str, model: str, options: dict[str, Scalar]
) -> None:
    facts = facts_of(shared, golden)
    network = make(model, facts["num_classes"], options).build()
    ours = [(key, list(value.shape)) for key, value in network.state_dict().items()]
    assert ours == list(map(tuple, facts["state_dict"].items()))


@each_published
def test_leaf_layers_run_as_published(
    shared: Path, golden: str, model: str, options: dict[str, Scalar]
) -> None:
    facts = facts_of(shared, golden)
    spec = make(model, facts["num_classes"], options)
    network = spec.build()
    trace: list[list[Any]] = []

    def watch(name: str) -> Any:
        def note(layer: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            # where MobileNetV3's blocks call one activation twice, ours have two, for quantizers
            trace.append(
                [
                    name.replace("nolinear2", "nolinear1"),
                    repr(layer),
                    list(given[0].shape[1:]),
                    list(out.shape[1:]),
                ]
            )

        return note

    for name, layer in network.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(watch(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, spec.image.height, spec.image.width))
    published = [
        [name, RENAMED.get(what, what), *shapes] for name, what, *shapes in facts["layers"]
    ]
    assert sorted(trace) == sorted(published)


@each_published
def test_outputs_and_priors_are_the_published_ones(
    shared: Path, golden: str, model: str, options: dict[str, Scalar]
) -> None:
    facts = facts_of(shared, golden)
    spec = make(model, facts["num_classes"], options)
    image = np.random.Generator(np.random.PCG64(0)).normal(0, 1, (1, 3, *size_of(facts)))
    with torch.no_grad():
        network = filled(spec, shared, facts)
        logits, offsets = network(torch.from_numpy(image.astype(np.float32)))
    assert logits.shape == (1, facts["num_priors"], facts["num_classes"])
    assert offsets.shape == (1, facts["num_priors"], 4)
    with np.load(shared / "reference" / f"{golden}.npz") as expected:
        rows = expected["rows"]
        for got, name in ((logits, "logits"), (offsets, "locations")):
            want = expected[name]
            np.testing.assert_allclose(
                got[0].numpy()[rows], want, rtol=0, atol=1e-4 * np.abs(want).max()
            )
            mean = float(np.abs(got.numpy()).mean())
            assert mean == pytest.approx(float(expected[f"{name}_abs_mean"]), rel=1e-4)
        np.testing.assert_allclose(spec.priors[rows], expected["priors"], rtol=0, atol=1e-6)
    assert spec.priors.shape == (facts["num_priors"], 4)
    assert spec.priors.dtype == np.float32


def tensorflow_variable(name: str, shape: list[int]) -> NDArray[Any]:
    """TensorFlow's weights behind the golden outputs, as the reference's README defines."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("depthwise_weights"):
        return rng.normal(0, np.sqrt(2 / 9), shape)
    if name.endswith("weights"):
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)
    if name.endswith(("gamma", "moving_variance")):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.1, shape)


def test_tensorflow_s_ssdlite_is_the_published_one(shared: Path) -> None:
    facts = facts_of(shared, "ssdlite_mobilenet_v2_coco")
    spec = make("ssdlite_mobilenet_v2_coco", facts["num_classes"], {})
    variables = {
        name: tensorflow_variable(name, shape)
        for name, shape in facts["variables"].items()
        if name != "global_step"
    }
    assert len(variables) == 404
    network = spec.build()
    network.load_state_dict(assemble(network, variables, Path("golden")))
    image = np.random.Generator(np.random.PCG64(0)).normal(0, 1, (1, 3, 300, 300))
    with torch.no_grad():
        logits, offsets = network(torch.from_numpy(image.astype(np.float32)))
    assert logits.shape == (1, facts["num_priors"], facts["num_classes"])
    with np.load(shared / "reference" / "ssdlite_mobilenet_v2_coco.npz") as expected:
        rows = expected["rows"]
        as_theirs = offsets[..., [1, 0, 3, 2]]  # (y, x, height, width)
        for got, name in ((logits, "logits"), (as_theirs, "locations")):
            want = expected[name]
            np.testing.assert_allclose(
                got[0].numpy()[rows], want, rtol=0, atol=1e-4 * np.abs(want).max()
            )
            mean = float(np.abs(got.numpy()).mean())
            assert mean == pytest.approx(float(expected[f"{name}_abs_mean"]), rel=1e-4)
        ymin, xmin, ymax, xmax = expected["anchors_corner_yxyx"].T
    anchors = np.stack([xmin + xmax, ymin + ymax, 2 * (xmax - xmin), 2 * (ymax - ymin)], 1) / 2
    np.testing.assert_allclose(spec.priors, anchors, rtol=0, atol=1e-6)


@each_published
def test_preprocessing_is_the_published_one(
    shared: Path, golden: str, model: str, options: dict[str, Scalar]
) -> None:
    facts = facts_of(shared, golden)
    image = make(model, 2, options).image
    unit = 255 if max(facts["image_mean"]) <= 1 else 1
    assert (image.height, image.width) == size_of(facts)
    assert np.allclose(image.mean, np.asarray(facts["image_mean"]) * unit)
    assert np.allclose(image.std, np.asarray(facts["image_std"]) * unit)


SMALL: dict[str, dict[str, Scalar]] = {
    "mb2_ssd_lite": {"width": 0.35},
    "etinynet_ssd_lite": {"width": 0.35},
    "mb3_small_ssd_lite": {},
    "rfb_320_face": {},
}
"""Models whose forward passes are quick, one of each way that feature maps arise."""
each_small = pytest.mark.parametrize("model", SMALL)


@pytest.mark.slow
@each_small
def test_network_exports_with_static_shapes(model: str) -> None:
    spec = make(model, 3, SMALL[model])
    network = spec.build()
    image = torch.randn(1, 3, spec.image.height, spec.image.width)
    program = torch.export.export(network, (image,))
    for got, want in zip(program.module()(image), network(image), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("size", [96, 160, 224])
@pytest.mark.parametrize("model", ["mb2_ssd_lite", "etinynet_ssd_lite"])
def test_priors_at_another_size_fit_the_maps(model: str, size: int) -> None:
    network = make(model, 3, {"width": 0.35}).build()
    with torch.no_grad():
        logits, _ = network(torch.zeros(1, 3, size, size))
    priors = network.priors_at((size, size))
    assert len(priors) == logits.shape[1]
    assert np.all((priors[:, :2] > 0) & (priors[:, :2] < 1))


@each_small
def test_priors_at_the_native_size_are_the_model_s(model: str) -> None:
    spec = make(model, 3, {})
    priors = spec.build().priors_at((spec.image.height, spec.image.width))
    np.testing.assert_array_equal(priors, spec.priors)


def test_priors_of_a_wide_input_halve_with_it() -> None:
    spec = make("slim_320_face", 2, {})
    network = spec.build()
    priors = network.priors_at((120, 160))
    with torch.no_grad():
        assert len(priors) == network(torch.zeros(1, 3, 120, 160))[0].shape[1]
    # the second cells of the largest maps, in pixels of each: a stride of 8, boxes half as large
    np.testing.assert_allclose(priors[3] * (160, 120, 160, 120), (12, 4, 5, 5), rtol=1e-6)
    np.testing.assert_allclose(spec.priors[3] * (320, 240, 320, 240), (12, 4, 10, 10), rtol=1e-6)


def test_close_up_priors_have_the_native_pixels() -> None:
    spec = make("mb2_ssd_lite", 3, {"width": 0.35})
    close = spec.build().priors_at((160, 160), close_up=True)
    assert len(close) == (100 + 25 + 9 + 4 + 1 + 1) * 6
    # the first cells of the largest map: 16 pixels apart, as at 300 pixels
    np.testing.assert_allclose(close[:6] * 160, spec.priors[:6] * 300, rtol=1e-5)
    np.testing.assert_allclose(close[6:12] * 160, spec.priors[6:12] * 300, rtol=1e-5)


@pytest.mark.parametrize("width", [0.3, 2.0, 0.0])
def test_etinynet_refuses_other_widths(width: float) -> None:
    with pytest.raises(BadConfig, match=r"got width .* give one of 1\.0, 0\.75, 0\.5, 0\.35"):
        make("etinynet_ssd_lite", 3, {"width": width})


@pytest.mark.parametrize("model", ["mb2_ssd_lite", "etinynet_ssd_lite"])
@pytest.mark.parametrize(
    ("labels", "says"), [(("background",), "1 labels"), (("background", "a", "a"), "'a' twice")]
)
def test_labels_that_cannot_be_are_refused(model: str, labels: tuple[str, ...], says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        MODELS.get(model)(labels)
