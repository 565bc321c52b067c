"""pytorch-ssd's evaluator, written a second time from its description, a detection at a time."""

from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy.pytorch_ssd import LEVELS, eleven_floats, pytorch_ssd_matches
from harness.accuracy.voc import voc_map, voc_result
from harness.interfaces import Detections, Truth
from tests.test_accuracy_voc import LABELS, found, random_case, truth


def evaluator_iou(one: list[float], two: list[float]) -> float:
    sides = [
        max(0.0, min(one[2], two[2]) - max(one[0], two[0])),
        max(0.0, min(one[3], two[3]) - max(one[1], two[1])),
    ]
    inter = sides[0] * sides[1]
    areas = [max(0.0, b[2] - b[0]) * max(0.0, b[3] - b[1]) for b in (one, two)]
    return inter / (areas[0] + areas[1] - inter + 1e-5)


def evaluator_ap(truths: list[Truth], detections: list[Detections], label: int) -> float | None:
    """One class: a dictionary of objects by image, a pass over the sorted detections."""
    objects: dict[int, list[tuple[list[float], bool]]] = {}
    positives = 0
    for image, own in enumerate(truths):
        for row in np.flatnonzero(own.labels == label):
            xmin, ymin, xmax, ymax = own.boxes[row].tolist()
            difficult = bool(own.difficult[row])
            # The annotation is (xmin + 1, ymin + 1, xmax, ymax); its reader takes 1 off all four.
            objects.setdefault(image, []).append(([xmin, ymin, xmax - 1, ymax - 1], difficult))
            positives += not difficult
    if not positives:
        return None
    ranked = [
        (-float(d.scores[row]), image, row)
        for image, d in enumerate(detections)
        for row in np.flatnonzero(d.labels == label).tolist()
    ]
    taken: set[tuple[int, int]] = set()
    right = wrong = 0
    curve = []
    for _, image, row in sorted(ranked):
        overlaps = [
            evaluator_iou(detections[image].boxes[row].tolist(), box)
            for box, _ in objects.get(image, [])
        ]
        best = max(range(len(overlaps)), key=lambda index: overlaps[index], default=None)
        if best is None or overlaps[best] <= 0.5:
            wrong += 1
        elif objects[image][best][1]:
            continue
        elif (image, best) in taken:
            wrong += 1
        else:
            taken.add((image, best))
            right += 1
        curve.append((right / positives, right / (right + wrong)))
    levels = np.arange(0.0, 1.1, 0.1).tolist()
    return sum(max((p for r, p in curve if r >= level), default=0.0) for level in levels) / 11


def scored(truths: list[Truth], detections: list[Detections]) -> dict[str, float | None]:
    matches = pytorch_ssd_matches(truths, detections, len(LABELS))
    return voc_result(matches, LABELS, eleven_floats).per_class


@pytest.mark.slow
def test_equals_the_evaluator_on_thousands_of_random_cases() -> None:
    rng = np.random.default_rng(11)
    defined = others = 0
    for case in range(1200):
        truths, detections = random_case(rng)
        got = scored(truths, detections)
        devkit = voc_map(truths, detections, LABELS, definition="voc07").per_class
        for label, name in enumerate(LABELS[1:], start=1):
            expected = evaluator_ap(truths, detections, label)
            assert got[name] == (
                None if expected is None else pytest.approx(expected, abs=1e-12)
            ), case
            defined += expected is not None
            others += got[name] != devkit[name]
    assert defined > 1500
    assert others > 300  # the habits matter: it is a variant of its own


def test_eleven_levels_are_floats() -> None:
    """3 of 10 objects found: 0.3 is below 0.30000000000000004, so only 3 of 11 levels count."""
    assert len(LEVELS) == 11
    truths = [truth((0, 0, 10, 10, 1)) for _ in range(10)]
    detections = [found((0, 0, 10, 10, 1, 0.5)) for _ in range(3)] + [found()] * 7
    assert scored(truths, detections)["cat"] == pytest.approx(3 / 11)
    assert voc_map(truths, detections, LABELS, definition="voc07").mean == pytest.approx(4 / 11)


def test_an_overlap_of_exactly_a_half_is_a_miss_and_objects_are_a_pixel_shorter() -> None:
    """Object of 9 by 9 there (10 by 10 in the devkit); boxes within it of 9 by 5 and 9 by 4."""
    truths = [truth((0, 0, 10, 10, 1))]
    assert scored(truths, [found((0, 0, 9, 5, 1, 0.9))])["cat"] == 1.0
    assert scored(truths, [found((0, 0, 9, 4, 1, 0.9))])["cat"] == 0.0
    half = [truth((0, 0, 11, 11, 1))]  # 10 by 10 there
    assert scored(half, [found((0, 0, 10, 5, 1, 0.9))])["cat"] == 0.0


def test_crowds_are_ordinary_objects_and_difficult_ones_count_neither_way() -> None:
    crowd = [truth((0, 0, 10, 10, 1), crowd=(0,))]
    assert scored(crowd, [found((0, 0, 9, 9, 1, 0.9))])["cat"] == 1.0
    rows = (0, 0, 10, 10, 1), (20, 20, 30, 30, 1)
    hard = [truth(*rows, difficult=(1,))]
    on_hard = [found((20, 20, 29, 29, 1, 0.9), (0, 0, 9, 9, 1, 0.8))]
    assert scored(hard, on_hard)["cat"] == 1.0
