"""COCO's figures against pycocotools through its own JSON files, and against plain loops."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.accuracy.audit import by_pycocotools
from harness.accuracy.coco import FIGURES, CocoResult, coco_summary
from harness.errors import BadInput
from harness.interfaces import Detections, Truth

LABELS = ("background", "cat", "dog", "owl", "bat")


def random_case(rng: np.random.Generator, images: int) -> tuple[list[Truth], list[Detections]]:
    """Empty images, duplicates, tied scores, crowds, all three sizes, overlaps on thresholds."""
    truths, found = [], []
    for _ in range(images):
        objects, answers = int(rng.integers(0, 6)), int(rng.integers(0, 12))
        side = rng.choice([4, 10, 20, 40])  # boxes on a lattice: equal and exact overlaps
        low = rng.integers(0, 4, (objects, 2)) * side
        boxes = np.concatenate([low, low + rng.integers(1, 5, (objects, 2)) * side], axis=1)
        labels = rng.integers(1, 4, objects)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.uniform(0.4, 1, objects)
        truths.append(
            Truth(
                boxes.astype(np.float32),
                labels,
                rng.random(objects) < 0.3,
                rng.random(objects) < 0.15,
                area if rng.random() < 0.5 else None,
            )
        )
        low = rng.integers(0, 4, (answers, 2)) * side
        guesses = np.concatenate([low, low + rng.integers(1, 5, (answers, 2)) * side], axis=1)
        named = rng.integers(1, 5, answers)
        if objects:
            source = rng.integers(0, objects, answers)
            near = rng.random(answers) < 0.7
            guesses[near] = boxes[source[near]] + rng.integers(-1, 2, (near.sum(), 4)) * side / 10
            named[near] = labels[source[near]]
        scores = rng.integers(1, 10, answers) / 10
        found.append(Detections(guesses.astype(np.float32), named, scores.astype(np.float32)))
    return truths, found


def by_json_files(
    truths: list[Truth], found: list[Detections], folder: Path, first_category: int = 1
) -> tuple[dict[str, float | None], dict[int, float]]:
    """The twelve figures and per-class AP by pycocotools' own loaders and loops."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def edges(box: np.ndarray) -> list[float]:
        x, y, right, bottom = (float(value) for value in box)
        return [x, y, right - x, bottom - y]

    annotations: list[dict[str, Any]] = []
    for image, truth in enumerate(truths):
        for row, label in enumerate(truth.labels.tolist()):
            box = edges(truth.boxes[row])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1000 + image,
                    "category_id": label - 1 + first_category,
                    "bbox": box,
                    "area": box[2] * box[3] if truth.area is None else float(truth.area[row]),
                    "iscrowd": int(truth.crowd[row]),
                }
            )
    results = [
        {
            "image_id": 1000 + image,
            "category_id": int(label) - 1 + first_category,
            "bbox": edges(box),
            "score": float(score),
        }
        for image, answer in enumerate(found)
        for box, label, score in zip(*answer, strict=True)
    ]
    instances = {
        "info": {},
        "images": [{"id": 1000 + image} for image in range(len(truths))],
        "categories": [{"id": k + first_category} for k in range(len(LABELS) - 1)],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(folder / "instances.json"))
        evaluation = COCOeval(reference, reference.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [None if value < 0 else float(value) for value in evaluation.stats]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = {k + 1: float(precision[:, :, k].mean()) for k in range(precision.shape[2])}
    return dict(zip(FIGURES, stats, strict=True)), per_class


def assert_equal(got: CocoResult, expected: dict[str, float | None]) -> None:
    assert list(got.figures) == list(expected) == list(FIGURES)
    for name, value in expected.items():
        assert got.figures[name] == (None if value is None else pytest.approx(value, abs=1e-12)), (
            name
        )


@pytest.mark.slow
def test_equals_pycocotools_on_hundreds_of_random_cases(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    seen = dict.fromkeys(FIGURES, 0)
    for case in range(200):
        truths, found = random_case(rng, images=int(rng.integers(1, 8)))
        if not any(len(answer.scores) for answer in found):
            continue  # pycocotools cannot load an empty list of results
        got = coco_summary(truths, found, LABELS)
        expected, per_class = by_json_files(truths, found, tmp_path, first_category=case % 7 + 1)
        assert_equal(got, expected)
        for label, value in per_class.items():
            mine = got.per_class[LABELS[label]]
            assert mine == (None if value < 0 else pytest.approx(value, abs=1e-12))
        for name, value in expected.items():
            seen[name] += value is not None and 0 < value < 1
    assert min(seen.values()) > 25, f"figures that the cases hardly exercise: {seen}"


def test_equals_pycocotools_beyond_a_hundred_detections_per_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    truths, found = random_case(rng, images=3)
    crowd = [
        Detections(
            rng.uniform(0, 60, (400, 4)).astype(np.float32) + np.array([0, 0, 60, 60], np.float32),
            rng.integers(1, 3, 400),
            rng.random(400).round(2).astype(np.float32),
        )
        for _ in found
    ]
    mixed = [
        Detections(*(np.concatenate(pair) for pair in zip(a, b, strict=True)))
        for a, b in zip(crowd, found, strict=True)
    ]
    expected, _ = by_json_files(truths, mixed, tmp_path)
    assert_equal(coco_summary(truths, mixed, LABELS), expected)


def slow_overlap(one: list[float], two: list[float], crowd: bool) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    if width <= 0 or height <= 0:
        return 0.0
    area, other = ((b[2] - b[0]) * (b[3] - b[1]) for b in (one, two))
    return width * height / (area if crowd else area + other - width * height)


def slow_ap(
    truths: list[Truth], found: list[Detections], label: int, threshold: float
) -> float | None:
    """One class at one threshold, all sizes: a detection at a time, a recall level at a time."""
    positives = sum(int(((t.labels == label) & ~t.crowd).sum()) for t in truths)
    if not positives:
        return None
    outcomes: list[tuple[float, int, int, bool]] = []
    for image, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        own = [row for row in range(len(truth.labels)) if truth.labels[row] == label]
        named = [row for row in range(len(answer.labels)) if answer.labels[row] == label]
        named.sort(key=lambda row: -answer.scores[row])
        taken: set[int] = set()
        for place, row in enumerate(named[:100]):
            chosen = None
            for crowd in (False, True):
                best = threshold
                for other in own:
                    if truth.crowd[other] == crowd and other not in taken:
                        overlap = slow_overlap(
                            answer.boxes[row].tolist(), truth.boxes[other].tolist(), crowd
                        )
                        if overlap >= best:
                            chosen, best = other, overlap
                if chosen is not None:
                    break
            if chosen is None or not truth.crowd[chosen]:
                outcomes.append((-float(answer.scores[row]), image, place, chosen is not None))
            if chosen is not None and not truth.crowd[chosen]:
                taken.add(chosen)
    curve, hits = [], 0
    for count, (_, _, _, hit) in enumerate(sorted(outcomes), start=1):
        hits += hit
        curve.append((hits / positives, hits / count))
    levels = np.linspace(0, 1, 101).tolist()
    return sum(max((p for r, p in curve if r >= level), default=0.0) for level in levels) / 101


@pytest.mark.slow
def test_equals_plain_loops_on_a_thousand_random_cases() -> None:
    rng = np.random.default_rng(5)
    thresholds = np.linspace(0.5, 0.95, 10).tolist()
    for case in range(1000):
        truths, found = random_case(rng, images=int(rng.integers(1, 5)))
        got = coco_summary(truths, found, LABELS)
        table = [[slow_ap(truths, found, k, t) for t in thresholds] for k in (1, 2, 3, 4)]
        rows = [[value for value in row if value is not None] for row in table]
        for label, row in zip(LABELS[1:], rows, strict=True):
            mine = got.per_class[label]
            assert mine == (pytest.approx(sum(row) / 10, abs=1e-12) if row else None), case
            mine = got.per_class50[label]
            assert mine == (pytest.approx(row[0], abs=1e-12) if row else None), case
        known = [sum(row) / 10 for row in rows if row]
        assert got.figures["map"] == (pytest.approx(sum(known) / len(known)) if known else None)


def boxes_of_cats(*boxes: tuple[float, ...]) -> tuple[Truth, Detections]:
    """The same boxes as truth and as detections, best score first."""
    table = np.array(boxes, np.float32)
    ones, no = np.ones(len(boxes), np.int64), np.zeros(len(boxes), np.bool_)
    scores = np.linspace(1, 0.5, len(boxes)).astype(np.float32)
    return Truth(table, ones, no, no), Detections(table, ones, scores)


@pytest.mark.parametrize("order", [1, -1])
def test_a_tie_between_objects_goes_to_the_later_one(order: int) -> None:
    """Then the earlier one is left for the second detection, which lies exactly on one of them."""
    objects, _ = boxes_of_cats(*[(0, 0, 10, 10), (0, 2, 10, 12)][::order])
    _, answers = boxes_of_cats((0, 1, 10, 11), (0, 0, 10, 10))
    got = coco_summary([objects], [answers], LABELS).figures
    assert got == pytest.approx(by_pycocotools([objects], [answers], len(LABELS)), abs=1e-12)
    found_at_75 = {1: 1.0, -1: 51 / 101}  # both, or the first half of all recall levels
    assert got["map75"] == pytest.approx(found_at_75[order])


def test_sizes_include_both_their_ends() -> None:
    truth, answer = boxes_of_cats((0, 0, 32, 32), (50, 50, 146, 146))
    got = coco_summary([truth], [answer], LABELS).figures
    assert [got[f"map_{size}"] for size in ("small", "medium", "large")] == pytest.approx([1] * 3)
    assert got == pytest.approx(by_pycocotools([truth], [answer], len(LABELS)), abs=1e-12)


@pytest.mark.parametrize(("better", "recall"), [(99, 1.0), (100, 0.0)])
def test_the_hundred_and_first_detection_of_a_class_does_not_count(
    better: int, recall: float
) -> None:
    truth, _ = boxes_of_cats((0, 0, 10, 10))
    _, answer = boxes_of_cats(*[(50, 50, 60, 60)] * better, (0, 0, 10, 10))
    got = coco_summary([truth], [answer], LABELS).figures
    assert got["mar_100"] == recall
    assert got["map"] == pytest.approx(recall / 100)  # its precision is 1 of 100


def test_difficult_objects_are_ordinary_ones() -> None:
    truths, found = random_case(np.random.default_rng(6), images=6)
    easy = [truth._replace(difficult=np.zeros_like(truth.difficult)) for truth in truths]
    assert any(truth.difficult.any() for truth in truths)
    assert coco_summary(truths, found, LABELS)[:3] == coco_summary(easy, found, LABELS)[:3]


def test_the_segments_area_decides_the_size() -> None:
    box = np.array([[0, 0, 40, 40]], np.float32)
    one, no = np.array([1]), np.array([False])
    answer = [Detections(box, one, np.ones(1, np.float32))]
    by_box = coco_summary([Truth(box, one, no, no)], answer, LABELS).figures
    by_segment = coco_summary([Truth(box, one, no, no, np.array([900.0]))], answer, LABELS).figures
    assert (by_box["map_small"], by_box["map_medium"]) == (None, 1.0)
    assert (by_segment["map_small"], by_segment["map_medium"]) == (1.0, None)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    truths, found = random_case(np.random.default_rng(7), images=4)
    coco_summary(truths, found, LABELS)
    by_pycocotools(truths, found, len(LABELS))
    assert capfd.readouterr() == ("", "")


def test_the_audit_is_pycocotools(tmp_path: Path) -> None:
    truths, found = random_case(np.random.default_rng(8), images=9)
    expected, _ = by_json_files(truths, found, tmp_path)
    assert by_pycocotools(truths, found, len(LABELS)) == expected


def nothing(kind: str) -> tuple[list[Truth], list[Detections]]:
    no_truth = Truth(
        np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool)
    )
    silent = Detections(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, np.float32))
    wrong = Detections(np.ones((1, 4), np.float32), np.array([1]), np.ones(1, np.float32))
    return {
        "no images": ([], []),
        "empty images": ([no_truth] * 2, [silent] * 2),
        "only false positives": ([no_truth], [wrong]),
    }[kind]


@pytest.mark.parametrize("kind", ["no images", "empty images", "only false positives"])
def test_nothing_to_find_is_undefined(kind: str) -> None:
    got = coco_summary(*nothing(kind), LABELS)
    assert set(got.figures.values()) == {None}
    assert set(got.per_class.values()) == {None}


def test_nothing_found_is_zero() -> None:
    truths, found = random_case(np.random.default_rng(9), images=5)
    silent = [Detections(*(part[:0] for part in answer)) for answer in found]
    got = coco_summary(truths, silent, LABELS)
    assert got.figures["map"] == got.figures["mar_100"] == 0.0


def test_labels_out_of_range_are_refused() -> None:
    truths, found = random_case(np.random.default_rng(10), images=5)
    with pytest.raises(BadInput, match=r"label outside 1\.\.2"):
        coco_summary(truths, found, LABELS[:3])


def read_coco(path: Path) -> tuple[list[Truth], list[str]]:
    """Truth of an instances file, read apart from the data-set reader."""
    plain = json.loads(path.read_text())
    ids = sorted(category["id"] for category in plain["categories"])
    truths = []
    for image in sorted(entry["id"] for entry in plain["images"]):
        own = [entry for entry in plain["annotations"] if entry["image_id"] == image]
        boxes = np.array([entry["bbox"] for entry in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truths.append(
            Truth(
                boxes.astype(np.float32),
                np.array([ids.index(entry["category_id"]) + 1 for entry in own], np.int64),
                np.zeros(len(own), np.bool_),
                np.array([entry["iscrowd"] == 1 for entry in own], np.bool_),
                np.array([entry["area"] for entry in own], np.float64),
            )
        )
    return truths, ["background", *map(str, ids)]


def test_real_photos(shared: Path) -> None:
    truths, labels = read_coco(shared / "data" / "coco-val2017-128" / "instances.json")
    assert len(truths) == 128
    assert sum(int(truth.crowd.sum()) for truth in truths) == 10
    perfect = [
        Detections(t.boxes[~t.crowd], t.labels[~t.crowd], np.ones((~t.crowd).sum(), np.float32))
        for t in truths
    ]
    assert coco_summary(truths, perfect, labels).figures["map"] == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    noisy = []
    for answer in perfect:
        twice = np.repeat(np.arange(len(answer.labels)), 2)
        sides = np.tile(answer.boxes[twice, 2:] - answer.boxes[twice, :2], 2)
        boxes = answer.boxes[twice] + rng.normal(0, 0.08, (len(twice), 4)) * sides
        scores = rng.random(len(twice)).astype(np.float32)
        noisy.append(Detections(boxes.astype(np.float32), answer.labels[twice], scores))
    got = coco_summary(truths, noisy, labels)
    assert_equal(got, by_pycocotools(truths, noisy, len(labels)))
    assert got.figures["map"] is not None
    assert 0.2 < got.figures["map"] < 0.8
