"""Detectors with operators of their own through ONNX and TFLite on small inputs, against PyTorch.

Hard swish and squeeze-and-excite, dilated branches that are joined, fire modules and pools,
TensorFlow's padding. Every model by every exporter at full size is `benchmarks/support.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks.support import deterministic
from harness.interfaces import MODELS, RUNNERS, RunOptions
from harness.records import ModelSpec
from tests.conftest import MakeArtifact

torch = pytest.importorskip("torch", reason="the networks are built in torch")

FAMILIES = (
    "mb3_small_ssd_lite",
    "rfb_320_face",
    "sq_ssd_lite",
    "ssdlite_mobilenet_v2_coco",
)
SIZE = (96, 128)
"""Not square, so that nobody takes one side for the other."""


def small(name: str) -> ModelSpec:
    """The model on a small input, with deterministic weights."""
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

    image = type(spec.image)(height=SIZE[0], width=SIZE[1], mean=(0.0,) * 3, std=(1.0,) * 3)
    with torch.no_grad():
        logits, _ = spec.build()(torch.zeros(1, 3, *SIZE))
    priors = np.full((logits.shape[1], 4), 0.5, np.float32)
    return dataclasses.replace(spec, build=build, image=image, priors=priors)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_exports_answer_what_the_network_does(name: str, export_artifact: MakeArtifact) -> None:
    for module in ("onnxscript", "tensorflow"):
        pytest.importorskip(module, reason="both exporters take part")
    spec = small(name)
    image = np.random.default_rng(2).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)
    with torch.no_grad():
        expected = [answer.numpy() for answer in spec.build()(torch.from_numpy(image))]
    for exporter, runner in (("onnx_float", "ort_cpu"), ("tflite_float", "litert_cpu")):
        artifact, folder = export_artifact(exporter, spec)
        (tensor,) = artifact.inputs
        given = image if tensor.layout == "NCHW" else image.transpose(0, 2, 3, 1)
        with RUNNERS.get(runner)().open(artifact, folder, RunOptions(threads=1)) as session:
            found = session.run(np.ascontiguousarray(given))
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
