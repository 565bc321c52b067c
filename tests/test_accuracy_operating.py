"""Precision, recall and F1 at a score, against a count by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy.bootstrap import draw
from harness.accuracy.operating import NO_VALUE, operating_point
from harness.interfaces import Detections, Truth
from harness.records import Measurement, encode
from tests.test_accuracy_voc import LABELS, found, random_case, truth


def measured(
    truths: list[Truth], detections: list[Detections], score: float = 0.5, iou: float = 0.5
) -> dict[str, Measurement]:
    weights = draw(len(truths), 50, 0)
    items = operating_point(truths, detections, LABELS, weights, seed=0, score=score, iou=iou)
    return {item.metric.removeprefix("accuracy."): item for item in items}


def test_a_count_by_hand() -> None:
    """Two of three cats found, one cat twice, one dog invented; below the score nothing counts."""
    truths = [truth((0, 0, 9, 9, 1), (20, 0, 29, 9, 1)), truth((0, 0, 9, 9, 1))]
    detections = [
        found(
            (0, 0, 9, 9, 1, 0.9), (0, 0, 9, 8, 1, 0.8), (20, 0, 29, 9, 1, 0.5), (5, 5, 9, 9, 2, 0.7)
        ),
        found((0, 0, 9, 9, 1, 0.49)),
    ]
    got = measured(truths, detections)
    assert got["precision"].value == pytest.approx(2 / 4)
    assert got["recall"].value == pytest.approx(2 / 3)
    assert got["f1"].value == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    conditions = got["f1"].conditions
    assert [conditions[key] for key in ("right", "wrong", "missed")] == [2, 2, 1]
    assert (conditions["score"], conditions["iou"], conditions["images"]) == (0.5, 0.5, 2)
    assert got["precision"].conditions["per_class"] == {
        "cat": pytest.approx(2 / 3),
        "dog": 0.0,
        "owl": None,
    }
    assert got["recall"].conditions["per_class"] == {
        "cat": pytest.approx(2 / 3),
        "dog": None,
        "owl": None,
    }
    assert measured(truths, detections, score=0.4)["recall"].value == 1.0


def slow_counts(
    truths: list[Truth], detections: list[Detections], label: int, score: float, iou: float
) -> tuple[int, int, int]:
    right = wrong = objects = 0
    for own, answer in zip(truths, detections, strict=True):
        rows = np.flatnonzero((answer.labels == label) & (answer.scores >= np.float32(score)))
        taken = set()
        counted = own.difficult | own.crowd
        objects += int(((own.labels == label) & ~counted).sum())
        for row in sorted(rows.tolist(), key=lambda index: -answer.scores[index]):
            best, overlap = None, iou
            for other in np.flatnonzero(own.labels == label).tolist():
                one, two = answer.boxes[row].astype(float), own.boxes[other].astype(float)
                low, high = np.maximum(one[:2], two[:2]), np.minimum(one[2:], two[2:])
                inter = float(np.prod(np.maximum(high - low, 0)))
                union = float(np.prod(one[2:] - one[:2]) + np.prod(two[2:] - two[:2])) - inter
                if inter / union > overlap or (best is None and inter / union >= overlap):
                    best, overlap = other, inter / union
            if best is None or best in taken:
                wrong += 1
            elif not counted[best]:
                right += 1
                taken.add(best)
    return right, wrong, objects - right


def test_equals_plain_loops_on_random_cases() -> None:
    rng = np.random.default_rng(5)
    for case in range(300):
        truths, detections = random_case(rng)
        score, iou = float(rng.choice([0.125, 0.375, 0.5])), float(rng.choice([0.3, 0.5, 0.75]))
        got = measured(truths, detections, score, iou)
        table = [slow_counts(truths, detections, label, score, iou) for label in (1, 2, 3)]
        right, wrong, missed = (sum(column) for column in zip(*table, strict=True))
        conditions = got["f1"].conditions
        assert (conditions["right"], conditions["wrong"], conditions["missed"]) == (
            right,
            wrong,
            missed,
        ), case
        if right + wrong:
            assert got["precision"].value == pytest.approx(right / (right + wrong))


def test_the_interval_is_over_images() -> None:
    """100 images with one object, found in 70: recall 0.7, its standard error 0.046."""
    truths = [truth((0, 0, 9, 9, 1))] * 100
    detections = [found((0, 0, 9, 9, 1, 0.9))] * 70 + [found()] * 30
    weights = draw(100, 2000, 0)
    _, recall, _ = operating_point(truths, detections, LABELS, weights, seed=0, score=0.5, iou=0.5)
    low, high = recall.conditions["ci95"]
    assert low == pytest.approx(0.7 - 1.96 * 0.0458, abs=0.02)
    assert high == pytest.approx(0.7 + 1.96 * 0.0458, abs=0.02)


def test_what_is_undefined_says_why() -> None:
    got = measured([truth()], [found()])
    for name, reason in NO_VALUE.items():
        assert got[name].value is None
        assert got[name].conditions["reason"] == reason
        assert b"NaN" not in encode(got[name])
    wrong = measured([truth()], [found((0, 0, 9, 9, 1, 0.9))])
    assert (wrong["precision"].value, wrong["recall"].value, wrong["f1"].value) == (0.0, None, 0.0)
