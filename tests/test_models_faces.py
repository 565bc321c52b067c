"""The face detectors with their published weights: their authors' ONNX files, and real photos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.fetch.published import published
from harness.interfaces import MODELS
from harness.records import ModelSpec
from harness.registry import ROOT
from models._checkpoint import load_weights

FACES = {"rfb_320_face": "version-RFB-320", "slim_320_face": "version-slim-320"}
each_face = pytest.mark.parametrize("model", FACES)


def spec_of(model: str) -> ModelSpec:
    return MODELS.get(model)(published(model).labels)


@each_face
def test_the_policy_is_the_original_s(model: str) -> None:
    decoding = spec_of(model).decoding
    assert decoding.policy == "ultra-light-face"
    assert (decoding.score, decoding.iou_threshold, decoding.candidates) == ("softmax", 0.3, 200)
    assert decoding.shown_score == 0.7


@each_face
def test_their_onnx_file_answers_as_we_do(shared: Path, model: str) -> None:
    onnxruntime: Any = pytest.importorskip("onnxruntime", reason="it runs the published file")
    spec = spec_of(model)
    network = spec.build()
    folder = shared / "data" / "weights"
    load_weights(network, folder / f"{FACES[model]}.pth")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = folder / f"{FACES[model]}_without_postprocessing.onnx"
    session = onnxruntime.InferenceSession(str(file), options)
    image = np.random.Generator(np.random.PCG64(0)).normal(0, 1, (1, 3, 240, 320))
    scores, boxes = session.run(["scores", "boxes"], {"input": image.astype(np.float32)})
    with torch.no_grad():
        logits, offsets = network(torch.from_numpy(image.astype(np.float32)))
    np.testing.assert_allclose(logits.softmax(2).numpy(), scores, rtol=0, atol=1e-4)
    want = boxes
    np.testing.assert_allclose(offsets.numpy(), want, rtol=0, atol=1e-4 * np.abs(want).max())


FLOAT = ("onnx_float", "tflite_float", "torch_float")
INT8 = ("onnx_int8", "tflite_int8")


# TVM's and AOTInductor's compilers take minutes: the command, without --exporters, runs them too.
@pytest.mark.slow
def test_exports_detect_the_same_faces(shared: Path, tmp_path: Path) -> None:
    for module in ("onnxscript", "tensorflow"):
        pytest.importorskip(module, reason="these exporters take part")
    labels = tmp_path / "face.txt"
    labels.write_text("background\nface\n", encoding="utf-8")
    photos = f"voc:{shared}/data/helmet-voc/VOCdevkit"
    command = [sys.executable, "benchmarks/photos.py", "slim_320_face", "--json"]
    command += ["--weights", str(shared / "data" / "weights" / "version-slim-320.pth")]
    command += ["--labels", str(labels), "--images", "24", "--exporters", ",".join(FLOAT + INT8)]
    command += ["--photos", f"{photos}:val", "--calibration", f"{photos}:train"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    rows = {row["exporter"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(rows) == {*FLOAT, *INT8}
    for name in FLOAT:
        row = rows[name]
        assert row["shown"] == row["float"] == row["matched"] > 20, row
        assert row["lost"] == row["new"] == row["moved"] == row["rescored"] == 0, row
    for name in INT8:
        row = rows[name]
        assert row["lost"] + row["new"] <= 0.2 * row["float"], row
