"""The twelve COCO figures by pycocotools itself, for who wants the judge's own word: ``--audit``.

Nothing is written to disk or printed. Slower than our own figures, which the tests hold to it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

from harness.accuracy.coco import FIGURES
from harness.boxes import area
from harness.extras import require
from harness.interfaces import Detections, Truth


def by_pycocotools(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int
) -> dict[str, float | None]:
    """COCO's figures by name; None where pycocotools says -1, which is its word for undefined.

    Args:
        truths: ground truth of each image, at least one.
        detections: what was found in each image, in the same order.
        classes: number of labels, the background included.
    """
    return coco_evaluation(truths, detections, classes)()


def coco_evaluation(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int
) -> Callable[[], dict[str, float | None]]:
    """`by_pycocotools`, with its objects made and indexed now and evaluated when called."""
    coco = require("pycocotools.coco", extra="audit").COCO
    cocoeval = require("pycocotools.cocoeval", extra="audit").COCOeval
    shared = {
        "images": [{"id": index + 1} for index in range(len(truths))],
        "categories": [{"id": label} for label in range(1, classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference, answer = coco(), coco()
        reference.dataset = {**shared, "annotations": _objects(truths)}
        answer.dataset = {**shared, "annotations": _answers(detections)}
        reference.createIndex()
        answer.createIndex()

    def evaluate() -> dict[str, float | None]:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = cocoeval(reference, answer, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {
            name: None if value < 0 else float(value)
            for name, value in zip(FIGURES, evaluation.stats, strict=True)
        }

    return evaluate


def _objects(truths: Sequence[Truth]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for image, truth in enumerate(truths, start=1):
        areas = area(truth.boxes) if truth.area is None else truth.area
        columns = (truth.boxes.astype(float), truth.labels, areas, truth.crowd)
        for box, label, size, crowd in zip(*(c.tolist() for c in columns), strict=True):
            entry = _entry(len(entries) + 1, image, label, box)
            entries.append({**entry, "area": size, "iscrowd": int(crowd)})
    return entries


def _answers(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for image, found in enumerate(detections, start=1):
        columns = (found.boxes.astype(float), found.labels, area(found.boxes), found.scores)
        for box, label, size, score in zip(*(c.tolist() for c in columns), strict=True):
            entry = _entry(len(entries) + 1, image, label, box)
            entries.append({**entry, "area": size, "iscrowd": 0, "score": score})
    return entries


def _entry(number: int, image: int, label: int, box: list[float]) -> dict[str, Any]:
    corner_and_size = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    return {"id": number, "image_id": image, "category_id": label, "bbox": corner_and_size}
