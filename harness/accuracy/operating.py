"""Precision, recall and F1 of what an application shows: all detections from one score up.

A detection is right where it is the best one on an object of its class by the rules of `voc`
(difficult objects count neither way). A lower score never changes what becomes of a higher one, so
cutting first is the same as matching all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.accuracy.bootstrap import interval
from harness.accuracy.curves import Weights
from harness.accuracy.voc import voc_matches
from harness.interfaces import Detections, Truth
from harness.records import Measurement

NO_VALUE = {
    "precision": "nothing was found from this score up, so there is no precision",
    "recall": "no image holds an object that counts, so there is no recall",
    "f1": "nothing was found and nothing was there to be found, so there is no F1",
}


def operating_point(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    labels: Sequence[str],
    weights: Weights,
    *,
    seed: int,
    score: float,
    iou: float,
) -> list[Measurement]:
    """``accuracy.precision``, ``.recall`` and ``.f1`` over all classes, each 0..1.

    Args:
        labels: class names, background first.
        weights: resamples for the intervals, ``(resamples, images)``, drawn with ``seed``.
        score: detections that score at least so much are shown.
        iou: least overlap of a detection with its object.

    Returns:
        Conditions hold ``score``, ``iou``, ``images``, ``ci95``, ``per_class``, and the sums
        ``right`` (true positives), ``wrong`` (false positives) and ``missed`` (false negatives).

    Raises:
        BadInput: as `harness.accuracy.voc.voc_matches`.
    """
    shown = [_from(found, score) for found in detections]
    matches = voc_matches(truths, shown, len(labels), iou)
    images = len(truths)
    right, wrong, missed = np.zeros((3, len(matches), images))
    for row, of_class in enumerate(matches):
        hit, ignored = of_class.hit[0], of_class.ignored[0]
        right[row] = np.bincount(of_class.image[hit], minlength=images)
        wrong[row] = np.bincount(of_class.image[~hit & ~ignored], minlength=images)
        missed[row] = of_class.positives - right[row]
    classes = _rates(*(part.sum(axis=1) for part in (right, wrong, missed)))
    totals = [part.sum(axis=0) for part in (right, wrong, missed)]
    whole = _rates(*(part.sum(keepdims=True) for part in totals))
    drawn = _rates(*(weights @ part for part in totals))
    sums = dict(zip(("right", "wrong", "missed"), (int(t.sum()) for t in totals), strict=True))
    found = []
    for name, reason in NO_VALUE.items():
        value = _number(whole[name][0])
        limits = None if value is None else interval(drawn[name])
        conditions: dict[str, Any] = {
            "score": score,
            "iou": iou,
            "images": images,
            "resamples": len(weights),
            "seed": seed,
            "ci95": None if limits is None else [limits.low, limits.high],
            "per_class": {
                label: _number(number)
                for label, number in zip(labels[1:], classes[name], strict=True)
            },
            **sums,
        }
        if value is None:
            conditions["reason"] = reason
        metric = f"accuracy.{name}"
        found.append(Measurement(metric=metric, value=value, unit="1", conditions=conditions))
    return found


def _from(found: Detections, score: float) -> Detections:
    shown = found.scores >= np.float32(score)
    return Detections(found.boxes[shown], found.labels[shown], found.scores[shown])


def _rates(
    right: NDArray[np.float64], wrong: NDArray[np.float64], missed: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The three figures of each entry, NaN where they are 0 / 0."""
    with np.errstate(invalid="ignore"):
        return {
            "precision": right / (right + wrong),
            "recall": right / (right + missed),
            "f1": 2 * right / (2 * right + wrong + missed),
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
