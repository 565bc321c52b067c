"""Every model through ONNX, and operators of their own through TFLite, on small inputs.

TFLite takes those with hard swish and squeeze-and-excite, dilated branches that are joined, fire
modules and pools, TensorFlow's padding, a wide dilation. Every model by every exporter at full size
is `benchmarks/support.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks.support import deterministic
from harness.interfaces import EXPORTERS, MODELS, RUNNERS, RunOptions
from harness.records import ModelSpec
from harness.registry import ROOT
from tests.conftest import MakeArtifact

torch = pytest.importorskip("torch", reason="the networks are built in torch")

TFLITE = (
    "mb3_small_ssd_lite",
    "rfb_320_face",
    "sq_ssd_lite",
    "ssdlite_mobilenet_v2_coco",
    "vgg16_ssd",
)
PAIRS = (
    *(("onnx_float", "ort_cpu", path.stem) for path in sorted((ROOT / "models").glob("[!_]*.py"))),
    *(("tflite_float", "litert_cpu", name) for name in TFLITE),
)
SIZE = (96, 128)
"""Not square, so that nobody takes one side for the other."""
SIZES = {"vgg16_ssd": (300, 320)}
"""Its last convolutions have no padding and need their nine pixels."""


def small(name: str) -> ModelSpec:
    """The model on a small input, with deterministic weights."""
    height, width = SIZES.get(name, SIZE)
    spec = MODELS.get(name)(("background", "one", "two"))

    def build() -> Any:
        network = spec.build()
        network.load_state_dict(
            {
                key: torch.from_numpy(deterministic(key, tuple(value.shape)))
                for key, value in network.state_dict().items()
            }
        )
        return network

    image = type(spec.image)(height=height, width=width, mean=(0.0,) * 3, std=(1.0,) * 3)
    with torch.no_grad():
        logits, _ = spec.build()(torch.zeros(1, 3, height, width))
    priors = np.full((logits.shape[1], 4), 0.5, np.float32)
    # under its own name the session's exports would take it for the whole model
    return dataclasses.replace(spec, name=f"{name}_small", build=build, image=image, priors=priors)


@pytest.mark.slow
@pytest.mark.parametrize(("exporter", "runner", "name"), PAIRS)
def test_exports_answer_what_the_network_does(
    exporter: str, runner: str, name: str, export_artifact: MakeArtifact
) -> None:
    for module in EXPORTERS.get(exporter).modules:
        pytest.importorskip(module, reason=f"{exporter} needs it")
    spec = small(name)
    size = (spec.image.height, spec.image.width)
    image = np.random.default_rng(2).normal(0, 1, (1, 3, *size)).astype(np.float32)
    with torch.no_grad():
        expected = [answer.numpy() for answer in spec.build()(torch.from_numpy(image))]
    artifact, folder = export_artifact(exporter, spec)
    (tensor,) = artifact.inputs
    given = image if tensor.layout == "NCHW" else image.transpose(0, 2, 3, 1)
    with RUNNERS.get(runner)().open(artifact, folder, RunOptions(threads=1)) as session:
        found = session.run(np.ascontiguousarray(given))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
