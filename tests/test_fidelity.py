"""Fidelity to the float parent: planted changes are counted, by class and by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import detections as evidence
from harness import fidelity, parity
from harness.errors import ResultsError
from harness.interfaces import Detections, Truth
from harness.records import Measurement
from harness.summary import table
from tests.evidence_runs import run_with_evidence
from tests.report_runs import made_up_run

LABELS = ("background", "cat", "dog", "bird")
SIZE = (100, 200)


def _found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    table = np.array(sorted(rows, key=lambda row: -row[5]), np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


PARENT = [
    _found((10, 10, 50, 50, 1, 0.9), (60, 10, 90, 60, 2, 0.8), (5, 5, 9, 9, 3, 0.05)),
    _found((20, 20, 80, 80, 2, 0.7)),
    _found((100, 20, 140, 80, 3, 0.6)),
]


def _by_name(found: Sequence[Measurement]) -> dict[str, Measurement]:
    return {one.metric.removeprefix("fidelity."): one for one in found}


def _fidelity(child: Sequence[Detections]) -> dict[str, Measurement]:
    names = [f"image{index}" for index in range(len(child))]
    return _by_name(
        fidelity.fidelity(names, PARENT[: len(child)], child, [SIZE] * len(child), LABELS)
    )


def test_a_model_is_wholly_faithful_to_itself() -> None:
    found = _fidelity(PARENT)
    assert found["coco_map"].value == 1.0
    assert found["coco_map50"].value == 1.0
    assert [found[name].value for name in fidelity.COUNTS] == [4, 0, 0, 0, 0]
    assert found["changed_images"].value == 0
    assert found["changed_images"].conditions["most_changed"] == []


def test_what_is_planted_is_counted_by_class_and_image() -> None:
    child = [
        # the cat is 14 pixels wider: moved; the dog is lost; the noise stays noise
        _found((10, 10, 64, 50, 1, 0.9), (5, 5, 9, 9, 3, 0.05)),
        # rescored by 0.25, and a cat that the parent does not see
        _found((20, 20, 80, 80, 2, 0.45), (120, 20, 160, 60, 1, 0.5)),
        PARENT[2],
    ]
    found = _fidelity(child)
    assert {name: found[name].value for name in fidelity.COUNTS} == {
        "matched": 3,
        "lost": 1,
        "new": 1,
        "moved": 1,
        "rescored": 1,
    }
    assert found["lost"].conditions["per_class"] == {"dog": 1}
    assert found["new"].conditions["per_class"] == {"cat": 1}
    assert found["moved"].conditions["per_class"] == {"cat": 1}
    assert found["rescored"].conditions["per_class"] == {"dog": 1}
    changed = found["changed_images"]
    assert changed.value == 2
    assert [one["image"] for one in changed.conditions["most_changed"]] == ["image0", "image1"]
    # The classes' AP@.5: the new cat ranks below the true one; one of two dogs; the bird.
    assert found["coco_map50"].conditions["per_class"]["dog"] == pytest.approx(51 / 101)
    assert found["coco_map50"].conditions["per_class"]["bird"] == 1.0
    value, (low, high) = found["coco_map"].value, found["coco_map"].conditions["ci95"]
    assert value is not None
    assert low <= value <= high


def test_what_the_parent_hardly_saw_is_no_truth() -> None:
    truth = fidelity.pseudo_truth(PARENT[0])
    assert truth.labels.tolist() == [1, 2]


@st.composite
def _images(draw: st.DrawFn) -> list[Detections]:
    images = []
    for _ in range(3):
        rows = draw(
            st.lists(
                st.tuples(
                    st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.integers(0, 10)
                ),
                max_size=6,
            )
        )
        boxes = [(20 * x, 20 * y, 20 * x + 30, 20 * y + 25) for x, y, _, _ in rows]
        images.append(
            _found(*((*b, kind, s / 10) for b, (_, _, kind, s) in zip(boxes, rows, strict=True)))
        )
    return images


@given(_images(), _images())
def test_classes_and_images_add_up_to_the_whole(
    parent: list[Detections], child: list[Detections]
) -> None:
    whole = parity.compare_detections(parent, child)
    assert fidelity.per_class(parent, child, len(LABELS)).sum(axis=0).tolist() == list(whole)
    changed = fidelity.changes(["a", "b", "c"], parent, child)
    assert sum(one.total for one in changed) == sum(whole) - whole.matched
    assert [one.total for one in changed] == sorted((c.total for c in changed), reverse=True)


def _truth(area: bool) -> Truth:
    flags = np.array([True, False])
    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]], np.float32)
    labels = np.array([2, 1])
    return Truth(boxes, labels, flags, ~flags, np.array([3.0, 4.5]) if area else None)


@pytest.mark.parametrize("area", [False, True])
def test_evidence_comes_back_as_it_was_saved(tmp_path: Path, area: bool) -> None:
    empty = Truth(*(column[:0] for column in _truth(area=True)))
    before = evidence.Found(
        ["a b", "ü", "c"],
        [PARENT[0], _found(), PARENT[2]],
        [(10, 20), (30, 40), (5, 6)],
        ["0" * 64, "1" * 64, "2" * 64],
        [_truth(area), empty, _truth(area)],
    )
    evidence.save(tmp_path / "e.npz", before)
    after = evidence.load(tmp_path / "e.npz")
    assert (after.names, after.sizes, after.digests) == (before.names, before.sizes, before.digests)
    assert after.truths is not None
    assert before.truths is not None
    for kind in ((before.detections, after.detections), (before.truths, after.truths)):
        for one, two in zip(*kind, strict=True):
            for name in one._fields:
                if name == "area" and not area:
                    assert two.area is None
                else:
                    np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_evidence_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.npz"
    evidence.save(path, evidence.Found(["a", "b", "c"], PARENT))
    found = evidence.load(path)
    assert found.names == ["a", "b", "c"]
    assert found.sizes is found.digests is found.truths is None
    assert [len(one.labels) for one in found.detections] == [3, 1, 1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no zip"])
def test_damaged_evidence_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"bad\.npz cannot be read"):
        evidence.load(path)


def test_a_row_without_labels_says_its_fidelity_in_the_terminal(tmp_path: Path) -> None:
    run = run_with_evidence(tmp_path, labelled=False)
    scored = [record for record in run.records if record.cell.measure == "accuracy"]
    said = table(scored, as_json=False)
    assert "fidelity of mb2_ssd_lite onnx_int8 on ort_cpu:" in said
    assert "16 matched (0 moved, 0 rescored), 5 lost, 5 new; 5 of 6 images changed" in said
    assert "fidelity of" not in table(made_up_run().records, as_json=False)
