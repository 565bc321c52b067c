"""``eval --against``: the parent is scored first, and the child's record depends on it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from harness import artifacts, config
from harness.config import Matrix
from harness.datasets.shapes import LABELS
from harness.errors import BadConfig
from harness.interfaces import RawOutputs
from harness.plan import plan_against, plan_artifact
from harness.records import Artifact
from tests.report_runs import made_up_run


def _artifact(folder: Path, exporter: str, **changed: object) -> Path:
    """An artifact's folder that holds what its manifest says, if nothing that runs."""
    made: Artifact = next(a for a in made_up_run().artifacts.values() if a.exporter == exporter)
    staging = folder / f"staging-{exporter}"
    staging.mkdir(parents=True)
    (staging / "model.bin").write_text(exporter)
    nothing = RawOutputs(np.zeros((0, 1, 2)), np.zeros((0, 1, 4)))
    golden = artifacts.Golden(np.zeros((0, 4, 4, 3), np.uint8), nothing)
    artifacts.write_extras(staging, np.zeros((1, 4), np.float32), golden)
    files = artifacts.entries(staging, ["model.bin"])
    changed = {"labels": LABELS, **changed}
    made = msgspec.structs.replace(
        made, files=files, sha256=artifacts.model_digest(files), **changed
    )
    artifacts.publish(staging, made, folder / exporter)
    return folder / exporter


@pytest.fixture
def matrix() -> Matrix:
    pytest.importorskip("onnxruntime", reason="the made-up artifacts are for ort_cpu")
    return config.load(None, {"measures": ["accuracy"], "images": 2})


def test_the_parent_comes_first_and_the_child_depends_on_it(tmp_path: Path, matrix: Matrix) -> None:
    parent, child = _artifact(tmp_path, "onnx_float"), _artifact(tmp_path, "onnx_int8")
    plan = plan_against(parent, child, matrix)
    assert [cell.cell.exporter for cell in plan.cells] == ["onnx_float", "onnx_int8"]
    assert plan.parent == plan.cells[0].id
    alone = plan_artifact(child, matrix)
    assert alone.parent is None
    assert alone.cells[0].id != plan.cells[1].id


def test_models_of_other_classes_are_refused(tmp_path: Path, matrix: Matrix) -> None:
    parent = _artifact(tmp_path, "onnx_float", labels=("background", "square"))
    child = _artifact(tmp_path, "onnx_int8")
    with pytest.raises(BadConfig, match="do not detect the same classes"):
        plan_against(parent, child, matrix)


def test_data_with_classes_that_the_artifact_lacks_is_refused(
    tmp_path: Path, matrix: Matrix
) -> None:
    folder = _artifact(tmp_path, "onnx_int8", labels=("background", "disc"))
    with pytest.raises(BadConfig, match="shapes:val has class 'ring', which the model does not"):
        plan_artifact(folder, matrix)


def test_without_ground_truth_a_parent_is_needed_and_enough(tmp_path: Path, matrix: Matrix) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    unlabelled = msgspec.structs.replace(matrix, data=f"images:{tmp_path}")
    parent, child = _artifact(tmp_path, "onnx_float"), _artifact(tmp_path, "onnx_int8")
    with pytest.raises(BadConfig, match="or the float export of its model with --against"):
        plan_artifact(child, unlabelled)
    assert len(plan_against(parent, child, unlabelled).cells) == 2
