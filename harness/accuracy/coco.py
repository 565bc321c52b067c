"""Mean average precision as COCO defines it, computed by pycocotools.

All twelve figures, per-class AP@[.5:.95], and the matches at the ten IoU thresholds for the
bootstrap. Nothing is written to disk or printed. At most 100 detections per class and image count,
crowd regions are ignored the COCO way, and VOC's `difficult` objects are ordinary objects, for COCO
knows no such flag.

The sizes (small < 32², medium < 96² pixels) are those of `Truth.area` where a data set has it, as
COCO's instances do (the area of the segment); else those of the boxes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.accuracy.curves import Matches
from harness.accuracy.voc import check
from harness.extras import require
from harness.interfaces import Detections, Truth

FIGURES = (
    "map",
    "map50",
    "map75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
)
"""Names of the twelve figures in pycocotools' order: AP six times, then average recall."""


class CocoResult(NamedTuple):
    """COCO's figures by name (see `FIGURES`) and AP per class; None where undefined.

    ``per_class`` is AP@[.5:.95], ``per_class50`` is AP@.5. ``matches`` holds the matches of every
    class at the ten IoU thresholds, all object sizes.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    per_class50: dict[str, float | None]
    matches: list[Matches]


def coco_summary(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    labels: Sequence[str],
) -> CocoResult:
    """Score ``detections`` against ``truths``, image by image in the same order.

    Args:
        sizes: ``(height, width)`` of each image in pixels.
        labels: class names, background first.

    Raises:
        BadInput: different numbers of images, labels out of range, values that are not finite.
    """
    check(truths, detections, len(labels))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _evaluate(truths, detections, sizes, labels)
    figures = {
        name: None if value < 0 else float(value)
        for name, value in zip(FIGURES, evaluation.stats, strict=True)
    }
    per_class, per_class50 = (
        {
            label: float(values.mean()) if (values > -1).any() else None
            for label, values in zip(labels[1:], np.moveaxis(precision, -1, 0), strict=True)
        }
        for everything in [evaluation.eval["precision"][..., 0, -1]]
        for precision in (everything, everything[:1])
    )
    matches = _matches(evaluation, len(truths), len(labels))
    return CocoResult(figures, per_class, per_class50, matches)


def _evaluate(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    labels: Sequence[str],
) -> Any:
    """A summarized ``COCOeval``. Image ids, category ids and annotation ids count from 1."""
    coco = require("pycocotools.coco", extra="all").COCO
    cocoeval = require("pycocotools.cocoeval", extra="all").COCOeval
    reference, answer = coco(), coco()
    shared = {
        "images": [
            {"id": index, "height": height, "width": width}
            for index, (height, width) in enumerate(sizes, start=1)
        ],
        "categories": [
            {"id": index, "name": label} for index, label in enumerate(labels[1:], start=1)
        ],
    }
    reference.dataset = {**shared, "annotations": _truth_annotations(truths)}
    answer.dataset = {**shared, "annotations": _detection_annotations(detections)}
    reference.createIndex()
    answer.createIndex()
    evaluation = cocoeval(reference, answer, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _truth_annotations(truths: Sequence[Truth]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for image, truth in enumerate(truths, start=1):
        boxes = _corner_and_size(truth.boxes)
        areas = boxes[:, 2] * boxes[:, 3] if truth.area is None else truth.area
        for box, label, area, crowd in zip(
            boxes.tolist(), truth.labels.tolist(), areas.tolist(), truth.crowd.tolist(), strict=True
        ):
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    return entries


def _detection_annotations(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for image, found in enumerate(detections, start=1):
        boxes = _corner_and_size(found.boxes).tolist()
        for box, label, score in zip(
            boxes, found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "score": score,
                }
            )
    return entries


def _corner_and_size(boxes: Any) -> Any:
    """``(n, 4)`` corner boxes as float64 ``(xmin, ymin, width, height)``."""
    wide = boxes.astype(np.float64)
    wide[:, 2:] -= wide[:, :2]
    return wide


def _matches(evaluation: Any, images: int, classes: int) -> list[Matches]:
    """The per-image results for all object sizes, joined per class and sorted by score."""
    sizes = len(evaluation.params.areaRng)
    thresholds = len(evaluation.params.iouThrs)
    joined = []
    for category in range(classes - 1):
        first = category * sizes * images
        parts = evaluation.evalImgs[first : first + images]
        kept = [(index, part) for index, part in enumerate(parts) if part is not None]
        positives = np.zeros(images, dtype=np.int64)
        for index, part in kept:
            positives[index] = np.count_nonzero(part["gtIgnore"] == 0)
        scores = np.concatenate([[], *(part["dtScores"] for _, part in kept)])
        order = np.argsort(-scores, kind="stable")
        image = np.repeat([index for index, _ in kept], [len(p["dtScores"]) for _, p in kept])
        nothing = np.zeros((thresholds, 0), dtype=np.bool_)
        found = np.concatenate([nothing, *(p["dtMatches"] > 0 for _, p in kept)], axis=1)
        ignored = np.concatenate([nothing, *(p["dtIgnore"] for _, p in kept)], axis=1)
        joined.append(
            Matches(
                image.astype(np.int64)[order],
                (found & ~ignored)[:, order],
                ignored[:, order],
                positives,
            )
        )
    return joined
