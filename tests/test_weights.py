"""Checkpoints and what lies beside them: classes, and how the weights learned their boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import training_images, weights
from harness.config import Training, load
from harness.errors import BadConfig
from harness.plan import make_plan

NAMES = ["background", "cat", "dog"]


def checkpoint(folder: Path, **manifest: Any) -> Path:
    path = folder / "best.safetensors"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_text(json.dumps({"labels": NAMES, **manifest}))
    return path


def found(path: Path, labels: Path | None = None) -> weights.Weights:
    return weights.find("mb2_ssd_lite", {}, str(path), labels)


def test_recipes_train_as_the_weights_were_trained(tmp_path: Path) -> None:
    own = found(checkpoint(tmp_path, options={"match_iou": 0.4}))
    assert own.labels == tuple(NAMES)
    foreign = found(checkpoint(tmp_path, options="none of ours"))
    assert (own.match_iou, foreign.match_iou) == (0.4, None)
    plain = load(None, {"measures": ["latency"]})
    assert training_images.resolve(plain, own) == Training(data="shapes:train", match_iou=0.4)
    assert training_images.resolve(plain, foreign).match_iou == 0.5
    asked = load(None, {"measures": ["latency"], "training.match_iou": 0})
    assert training_images.given(training_images.resolve(asked, own)).match_iou == 0
    with pytest.raises(BadConfig, match=r"'training\.match_iou' of the command line is 1\.5"):
        load(None, {"training.match_iou": 1.5})


def test_labels_that_do_not_fit_the_checkpoint_are_refused(tmp_path: Path) -> None:
    path, labels = checkpoint(tmp_path), tmp_path / "labels.txt"
    labels.write_text("background\ncat\n")
    with pytest.raises(BadConfig, match=r"names 2 classes, .* was trained for 3: background, cat"):
        found(path, labels)
    labels.write_text("background\nKatze\nHund\n")
    assert found(path, labels).labels[1:] == ("Katze", "Hund")


def test_labels_rename_the_classes_of_shipped_weights_or_are_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    names = ["background", *(f"Klasse {number}" for number in range(10))]
    labels.write_text("\n".join(names))
    given = {"activation": "relu6", "width": 1.0}
    assert weights.find("mb2_ssd_lite", given, "shipped", labels).labels == tuple(names)
    labels.write_text("background\ncat\n")
    with pytest.raises(
        BadConfig, match=r"names 2 classes, .* was trained for 11: background, disc"
    ):
        weights.find("mb2_ssd_lite", given, "shipped", labels)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    path = checkpoint(tmp_path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(BadConfig, match=r"best\.json is no manifest of weights"):
        found(path)


def test_data_with_other_classes_is_refused_by_the_plan(tmp_path: Path) -> None:
    asked = {"weights": str(checkpoint(tmp_path)), "exporters": ["onnx_float"]}
    with pytest.raises(BadConfig, match="shapes:val has class 'disc', which the model does not"):
        make_plan(load(None, asked))
    timed = make_plan(load(None, {**asked, "measures": ["latency"]}))
    assert timed.cells, "nothing is scored, so no class is asked for"
