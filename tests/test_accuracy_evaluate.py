"""The measurements that a run records: a golden file compared whole, and their conditions.

Accept new numbers, after reading the difference, with
``DETBENCH_ACCEPT=1 python -m pytest tests/test_accuracy_evaluate.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.accuracy import DEFINITIONS, UNDEFINED, compare, evaluate
from harness.accuracy.audit import by_pycocotools
from harness.errors import BadInput
from harness.interfaces import Detections, Truth
from harness.records import Measurement, encode

GOLDEN = Path(__file__).parent / "golden"
LABELS = ("background", "circle", "square", "star", "never seen")


@pytest.fixture(scope="module")
def scored() -> tuple[list[Truth], list[Detections], list[Detections], list[tuple[int, int]]]:
    """Truth, detections, poorer detections and sizes of ``golden/accuracy_input.json``.

    24 images with empty ones, crowds, difficult objects, segment areas, duplicates and tied scores.
    """
    plain = json.loads((GOLDEN / "accuracy_input.json").read_text())
    truths, found, poorer, sizes = [], [], [], []
    for image in plain["images"]:
        sizes.append((image["height"], image["width"]))
        objects = image["objects"]
        truths.append(
            Truth(
                np.array([o["box"] for o in objects], np.float32).reshape(-1, 4),
                np.array([LABELS.index(o["label"]) for o in objects], np.int64),
                np.array([o["difficult"] for o in objects], np.bool_),
                np.array([o["crowd"] for o in objects], np.bool_),
                np.array([o["area"] for o in objects], np.float64),
            )
        )
        for key, into in (("float32", found), ("int8", poorer)):
            rows = image[key]
            into.append(
                Detections(
                    np.array([r["box"] for r in rows], np.float32).reshape(-1, 4),
                    np.array([LABELS.index(r["label"]) for r in rows], np.int64),
                    np.array([r["score"] for r in rows], np.float32),
                )
            )
    return truths, found, poorer, sizes


def rounded(value: Any) -> Any:
    """The same JSON with numbers to 9 decimals: the last bits belong to the machine's sums."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def as_json(measurements: tuple[Measurement, ...]) -> Any:
    return rounded([json.loads(encode(item)) for item in measurements])


def test_golden_measurements(scored: Any) -> None:
    truths, found, poorer, sizes = scored
    got = {
        "evaluate": as_json(evaluate(truths, found, sizes, LABELS, seed=1, resamples=200)),
        "compare": as_json(compare(truths, found, poorer, sizes, LABELS, seed=1, resamples=200)),
    }
    path = GOLDEN / "accuracy_expected.json"
    if os.environ.get("DETBENCH_ACCEPT"):
        path.write_text(json.dumps(got, indent=1, sort_keys=True) + "\n")
    assert got == json.loads(path.read_text())


def test_the_golden_coco_figures_are_pycocotools(scored: Any) -> None:
    """The golden file cannot be accepted wrong: its COCO figures are held to the judge."""
    truths, found, _, _ = scored
    golden = json.loads((GOLDEN / "accuracy_expected.json").read_text())["evaluate"]
    (coco_map,) = [item for item in golden if item["metric"] == "accuracy.coco_map"]
    judged = by_pycocotools(truths, found, len(LABELS))
    assert coco_map["conditions"]["coco"] == pytest.approx(judged, abs=1e-9)
    assert coco_map["value"] == pytest.approx(judged["map"], abs=1e-9)
    assert all(value is not None for value in judged.values())


def test_conditions_say_all_that_the_figure_holds_under(scored: Any) -> None:
    truths, found, _, sizes = scored
    for item in evaluate(truths, found, sizes, LABELS, seed=3, resamples=50):
        assert item.conditions["images"] == len(truths)
        assert item.conditions["seed"] == 3
        assert item.conditions["resamples"] == 50
        low, high = item.conditions["ci95"]
        assert 0 <= low < item.value < high <= 1
        assert list(item.conditions["per_class"]) == list(LABELS[1:])
        if item.metric not in DEFINITIONS:
            continue
        assert item.conditions["per_class"]["never seen"] is None
        known = [value for value in item.conditions["per_class"].values() if value is not None]
        assert item.value == pytest.approx(sum(known) / len(known))


def test_a_perfect_answer_scores_one_on_every_definition(scored: Any) -> None:
    truths, _, _, sizes = scored
    perfect = [
        Detections(t.boxes[~t.crowd], t.labels[~t.crowd], np.ones((~t.crowd).sum(), np.float32))
        for t in truths
    ]
    for item in evaluate(truths, perfect, sizes, LABELS, resamples=20):
        if item.metric == "accuracy.pytorch_ssd_map":  # which expects to find the crowds too
            continue
        assert item.value == pytest.approx(1.0)
        assert item.conditions["ci95"] == pytest.approx([1.0, 1.0])


def test_the_estimate_of_a_comparison_is_the_difference_of_the_scores(scored: Any) -> None:
    truths, found, poorer, sizes = scored
    before = evaluate(truths, found, sizes, LABELS, resamples=10)
    after = evaluate(truths, poorer, sizes, LABELS, resamples=10)
    change = compare(truths, found, poorer, sizes, LABELS, resamples=10)
    assert len(change) == len(DEFINITIONS)
    for one, two, both in zip(before[: len(change)], after[: len(change)], change, strict=True):
        assert both.metric == f"{one.metric}_change"
        assert both.value == pytest.approx(two.value - one.value, abs=1e-9)


@pytest.mark.parametrize("images", [0, 2])
def test_what_is_undefined_is_none_with_a_reason(images: int) -> None:
    empty = Truth(np.zeros((0, 4), "f4"), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool))
    wrong = Detections(np.ones((1, 4), "f4"), np.array([1]), np.ones(1, "f4"))
    arguments = [empty] * images, [wrong] * images
    sizes = [(10, 10)] * images
    scores = evaluate(*arguments, sizes, LABELS)
    change = compare(*arguments, [wrong] * images, sizes, LABELS)
    shown = ["accuracy.precision", "accuracy.recall", "accuracy.f1"]
    assert [item.metric for item in scores] == [*DEFINITIONS, *shown]
    for item in (*scores[: len(DEFINITIONS)], *change):
        assert item.value is None
        assert item.conditions["ci95"] is None
        assert item.conditions["reason"] == UNDEFINED
        assert b"NaN" not in encode(item)


def test_boxes_outside_their_image_are_refused(scored: Any) -> None:
    truths, found, _, sizes = scored
    swapped = [(width // 3, height // 3) for height, width in sizes]
    with pytest.raises(BadInput, match="in pixels of the original image"):
        evaluate(truths, found, swapped, LABELS)
    with pytest.raises(BadInput, match="24 images have detections and 23 have a size"):
        evaluate(truths, found, sizes[1:], LABELS)
