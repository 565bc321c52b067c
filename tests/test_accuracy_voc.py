"""VOC mAP against the devkit's definition, written a second time as plainly as it can be."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness import boxes as geometry
from harness.accuracy.voc import Definition, voc_map
from harness.errors import BadInput
from harness.interfaces import Detections, Truth

LABELS = ("background", "cat", "dog", "owl")

Row = tuple[float, float, float, float, int]


def truth(*rows: Row, difficult: tuple[int, ...] = (), crowd: tuple[int, ...] = ()) -> Truth:
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Truth(
        boxes=table[:, :4].astype(np.float32),
        labels=table[:, 4].astype(np.int64),
        difficult=np.isin(np.arange(len(table)), difficult),
        crowd=np.isin(np.arange(len(table)), crowd),
    )


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.int64),
        table[:, 5].astype(np.float32),
    )


def inclusive(box: np.ndarray) -> list[int]:
    """The devkit's corners: whole pixels counted from 1, the last one included."""
    xmin, ymin, xmax, ymax = (round(float(value)) for value in box)
    return [xmin + 1, ymin + 1, xmax, ymax]


def devkit_overlap(one: list[int], two: list[int]) -> Fraction:
    """As VOCevaldet.m: every side is one longer than the difference of its corners."""
    width = min(one[2], two[2]) - max(one[0], two[0]) + 1
    height = min(one[3], two[3]) - max(one[1], two[1]) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, two)]
    return Fraction(width * height, sum(areas) - width * height)


def devkit_ap(
    truths: list[Truth],
    detections: list[Detections],
    label: int,
    least: Fraction,
    definition: Definition,
) -> Fraction | None:
    """One class's average precision in exact fractions; whole-pixel boxes only."""
    positives = sum(int(((t.labels == label) & ~t.difficult & ~t.crowd).sum()) for t in truths)
    if not positives:
        return None
    ranked = [
        (-float(d.scores[row]), image, row)
        for image, d in enumerate(detections)
        for row in range(len(d.scores))
        if d.labels[row] == label
    ]
    claimed: set[tuple[int, int]] = set()
    hits = misses = 0
    curve: list[tuple[Fraction, Fraction]] = []
    for _, image, row in sorted(ranked):
        own = truths[image]
        best, best_overlap = None, Fraction(-1)
        for other in range(len(own.labels)):
            if own.labels[other] == label:
                overlap = devkit_overlap(
                    inclusive(detections[image].boxes[row]), inclusive(own.boxes[other])
                )
                if overlap > best_overlap:
                    best, best_overlap = other, overlap
        if best is not None and best_overlap >= least:
            if own.difficult[best] or own.crowd[best]:
                continue
            if (image, best) not in claimed:
                claimed.add((image, best))
                hits += 1
            else:
                misses += 1
        else:
            misses += 1
        curve.append((Fraction(hits, positives), Fraction(hits, hits + misses)))
    if definition == "voc07":
        levels = [Fraction(level, 10) for level in range(11)]
        best_at = [
            max((p for r, p in curve if r >= level), default=Fraction(0)) for level in levels
        ]
        return sum(best_at, Fraction(0)) / 11
    area, before = Fraction(0), Fraction(0)
    for index, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[index:])
        before = recall
    return area


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Whole-pixel boxes on a small canvas, so that overlaps tie and hit thresholds exactly."""
    low = rng.integers(0, 8, (count, 2))
    return np.concatenate([low, low + rng.integers(1, 7, (count, 2))], axis=1).astype(np.float32)


def random_case(rng: np.random.Generator) -> tuple[list[Truth], list[Detections]]:
    """A few images, some empty, with duplicates, tied scores, difficult objects and crowds."""
    truths, detections = [], []
    for _ in range(int(rng.integers(1, 6))):
        objects, answers = int(rng.integers(0, 5)), int(rng.integers(0, 8))
        boxes = random_boxes(rng, objects)
        truths.append(
            Truth(
                boxes,
                rng.integers(1, 3, objects),
                rng.random(objects) < 0.2,
                rng.random(objects) < 0.1,
            )
        )
        guesses = random_boxes(rng, answers)
        if objects:  # most detections are an object, exact or moved by a pixel, often twice
            copied = rng.random(answers) < 0.7
            source = boxes[rng.integers(0, objects, answers)]
            guesses[copied] = source[copied] + rng.choice([0, 0, 1], (answers, 1))[copied]
        detections.append(
            Detections(
                guesses,
                rng.integers(1, 4, answers),
                (rng.integers(1, 6, answers) / 8).astype(np.float32),
            )
        )
    return truths, detections


@pytest.mark.slow
@pytest.mark.parametrize("definition", ["voc07", "voc12"])
def test_equals_the_devkit_on_thousands_of_random_cases(definition: Definition) -> None:
    rng = np.random.default_rng(7)
    defined = 0
    for case in range(1500):
        truths, detections = random_case(rng)
        least = [Fraction(1, 2), Fraction(1, 3), Fraction(3, 4)][case % 3]
        got = voc_map(truths, detections, LABELS, iou_threshold=float(least), definition=definition)
        expected = [devkit_ap(truths, detections, k, least, definition) for k in (1, 2, 3)]
        for label, value in zip(LABELS[1:], expected, strict=True):
            if value is None:
                assert got.per_class[label] is None
            else:
                assert got.per_class[label] == pytest.approx(float(value), abs=1e-12), case
        known = [value for value in expected if value is not None]
        assert (got.mean is None) == (not known)
        if known:
            assert got.mean == pytest.approx(float(sum(known) / len(known)), abs=1e-12)
        defined += len(known)
    assert defined > 2000


def test_plain_iou_is_the_devkits_inclusive_one() -> None:
    rng = np.random.default_rng(1)
    one, two = random_boxes(rng, 60), random_boxes(rng, 60)
    got = geometry.iou(one, two)
    for row, first in enumerate(one):
        for column, second in enumerate(two):
            exact = devkit_overlap(inclusive(first), inclusive(second))
            assert got[row, column] == float(exact)


def test_a_hand_computed_curve() -> None:
    """Hit, miss, hit over 4 objects: recall .25 .25 .5, precision 1 1/2 2/3."""
    truths = [truth((0, 0, 9, 9, 1), (20, 0, 29, 9, 1), (40, 0, 49, 9, 1), (60, 0, 69, 9, 1))]
    detections = [found((0, 0, 9, 9, 1, 0.9), (80, 0, 89, 9, 1, 0.8), (20, 0, 29, 9, 1, 0.7))]
    area = voc_map(truths, detections, LABELS, definition="voc12")
    assert area.per_class["cat"] == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    points = voc_map(truths, detections, LABELS, definition="voc07")
    assert points.per_class["cat"] == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)


def test_a_recall_that_is_exactly_a_level_reaches_it() -> None:
    """3 of 10 found reach the level 0.3, where 3 * 0.1 in floats is above 0.3."""
    rows = [(20.0 * i, 0.0, 20.0 * i + 9, 9.0) for i in range(10)]
    truths = [truth(*[(*row, 1) for row in rows])]
    for hits in range(11):
        detections = [found(*[(*row, 1, 0.5) for row in rows[:hits]])]
        got = voc_map(truths, detections, LABELS, definition="voc07").per_class["cat"]
        assert got == pytest.approx((hits + 1) / 11 if hits else 0.0)


def test_the_second_detection_of_an_object_is_a_false_positive() -> None:
    truths = [truth((0, 0, 9, 9, 1), (20, 0, 29, 9, 1))]
    detections = [found((0, 0, 9, 9, 1, 0.9), (0, 0, 9, 9, 1, 0.8), (20, 0, 29, 9, 1, 0.7))]
    got = voc_map(truths, detections, LABELS)
    assert got.per_class["cat"] == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_an_ignored_object_is_neither_missed_nor_found(flag: str) -> None:
    rows: tuple[Row, Row] = ((0, 0, 9, 9, 1), (20, 0, 29, 9, 1))
    truths = [truth(*rows, **{flag: (1,)})]
    alone = found((0, 0, 9, 9, 1, 0.5))
    both = found((20, 0, 29, 9, 1, 0.9), (20, 0, 29, 9, 1, 0.8), (0, 0, 9, 9, 1, 0.5))
    assert voc_map(truths, [alone], LABELS).mean == 1.0
    assert voc_map(truths, [both], LABELS).mean == 1.0


def test_a_detection_goes_to_its_best_object_even_when_that_is_taken() -> None:
    """The devkit does not fall back to the second best, unlike COCO."""
    truths = [truth((0, 0, 10, 10, 1), (0, 0, 10, 12, 1))]
    detections = [found((0, 0, 10, 10, 1, 0.9), (0, 0, 10, 10, 1, 0.8))]
    assert voc_map(truths, detections, LABELS).mean == pytest.approx(0.5)


def test_tied_scores_stand_in_the_order_of_images_then_of_detections() -> None:
    miss, hit = (50, 50, 59, 59, 1, 0.5), (0, 0, 9, 9, 1, 0.5)
    one = truth((0, 0, 9, 9, 1))
    nothing = truth()
    assert voc_map([one], [found(hit, miss)], LABELS).mean == 1.0
    assert voc_map([one], [found(miss, hit)], LABELS).mean == 0.5
    assert voc_map([nothing, one], [found(miss), found(hit)], LABELS).mean == 0.5
    assert voc_map([one, nothing], [found(hit), found(miss)], LABELS).mean == 1.0


def test_classes_without_objects_stand_outside_the_mean() -> None:
    truths = [truth((0, 0, 9, 9, 1), (20, 0, 29, 9, 2), difficult=(1,))]
    got = voc_map(truths, [found((0, 0, 9, 9, 1, 0.5), (20, 0, 29, 9, 3, 0.9))], LABELS)
    assert got.mean == 1.0
    assert got.per_class == {"cat": 1.0, "dog": None, "owl": None}


def test_nothing_to_find_has_no_mean() -> None:
    assert voc_map([], [], LABELS).mean is None
    assert voc_map([truth()], [found((0, 0, 9, 9, 1, 0.5))], LABELS).mean is None


def test_nothing_found_is_zero() -> None:
    got = voc_map([truth((0, 0, 9, 9, 1))], [found()], LABELS)
    assert got.mean == 0.0


@pytest.mark.parametrize(
    ("truths", "detections", "labels", "message"),
    [
        ([truth()], [], LABELS, "1 images have ground truth and 0 have detections"),
        ([truth()], [found((0, 0, 1, 1, 4, 0.5))], LABELS, "image 0 has a detection with a label"),
        ([truth((0, 0, 1, 1, 0))], [found()], LABELS, "image 0 has ground truth with a label"),
        ([truth()], [found((0, 0, np.nan, 1, 1, 0.5))], LABELS, "not finite"),
        ([truth()], [found((0, 0, 1, 1, 1, np.inf))], LABELS, "not finite"),
        ([truth()], [found()], ("background",), "no classes beside the background"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    truths: list[Truth], detections: list[Detections], labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        voc_map(truths, detections, labels)


def read_voc(folder: Path) -> tuple[list[Truth], tuple[str, ...]]:
    """Truth of every XML under ``folder``, read apart from the data-set reader."""
    trees = [ElementTree.parse(path) for path in sorted(folder.rglob("Annotations/*.xml"))]
    names = sorted({node.text or "" for tree in trees for node in tree.iterfind("object/name")})
    truths = []
    for tree in trees:
        rows, difficult = [], []
        for node in tree.iterfind("object"):
            corners = [
                float(node.findtext(f"bndbox/{side}") or "nan")
                for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            label = names.index(node.findtext("name") or "") + 1
            rows.append((corners[0] - 1, corners[1] - 1, corners[2], corners[3], label))
            difficult.append(node.findtext("difficult") == "1")
        flagged = tuple(np.flatnonzero(difficult).tolist())
        truths.append(truth(*rows, difficult=flagged))
    return truths, ("background", *names)


@pytest.mark.parametrize("definition", ["voc07", "voc12"])
def test_real_photos(shared: Path, definition: Definition) -> None:
    truths, labels = read_voc(shared / "data" / "voc-100")
    assert len(truths) == 100
    assert sum(int(t.difficult.sum()) for t in truths) == 38
    rng = np.random.default_rng(0)
    perfect = [Detections(t.boxes, t.labels, np.ones(len(t.labels), np.float32)) for t in truths]
    assert voc_map(truths, perfect, labels, definition=definition).mean == 1.0
    moved = [
        Detections(
            (d.boxes + rng.integers(-12, 13, d.boxes.shape)).astype(np.float32),
            d.labels,
            rng.random(len(d.labels)).astype(np.float32),
        )
        for d in perfect
    ]
    usable = [
        Detections(*(part[(d.boxes[:, :2] < d.boxes[:, 2:]).all(axis=1)] for part in d))
        for d in moved
    ]
    got = voc_map(truths, usable, labels, definition=definition)
    for index, label in enumerate(labels[1:], start=1):
        exact = devkit_ap(truths, usable, index, Fraction(1, 2), definition)
        assert got.per_class[label] == (None if exact is None else pytest.approx(float(exact)))
    assert got.mean is not None
    assert 0.2 < got.mean < 0.95
