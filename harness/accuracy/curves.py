"""Average precision from matched detections, for one data set or for many resamples of it.

Matching is the costly half of mAP and does not depend on which images are drawn: it is done once,
into one `Matches` per class. A resample is a weight per image, how often it was drawn; every
detection and ground-truth object counts as often as its image.

Precision only matters where a detection is a hit (elsewhere it is no better than at the hit
before), so curves are held at the hits only: a few hundred points instead of thousands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32] | NDArray[np.float64]
"""``(images, resamples)``: how often each image counts in each resample, whole numbers.

float32 is exact up to 2**24 detections in a class; what is divided is float64 in any case.
"""
RECALLS = np.linspace(0.0, 1.0, 101)


class Matches(NamedTuple):
    """What became of the detections of one class at ``t`` IoU thresholds.

    Attributes:
        image: ``(d,)`` index of each detection's image; detections stand best score first,
            equal scores in the order of images, then of detections.
        hit: ``(t, d)`` the detection found an object that counts.
        ignored: ``(t, d)`` the detection counts neither way.
        positives: ``(images,)`` objects that count.
    """

    image: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    positives: NDArray[np.int64]


class Curve(NamedTuple):
    """Precision and recall at the hits, ``(hits, resamples)``; recall rises along the hits.

    Attributes:
        found: objects found so far (weighted).
        precision: the highest precision at this recall or a higher one.
        positives: ``(resamples,)`` objects there are (weighted).
    """

    found: NDArray[np.float64]
    precision: NDArray[np.float64]
    positives: NDArray[np.float64]


Rule = Callable[[Curve], NDArray[np.float64]]
"""Average precision ``(resamples,)`` of a curve; what it says where positives is 0 is not used."""


def average_precision(matches: Matches, weights: Weights, rule: Rule) -> NDArray[np.float64]:
    """Average precision ``(t, resamples)``, NaN where a resample holds no object of the class."""
    positives = matches.positives @ weights.astype(np.float64)
    drawn: NDArray[Any] = weights[matches.image]
    counted = np.cumsum(drawn, axis=0)
    values = np.zeros((len(matches.hit), weights.shape[1]))
    for row, (hit, ignored) in enumerate(zip(matches.hit, matches.ignored, strict=True)):
        at = np.flatnonzero(hit)
        if at.size:
            total = counted[at]
            if ignored.any():
                total -= _sum_before(drawn, np.flatnonzero(ignored), at)
            found = np.cumsum(drawn[at], axis=0, dtype=np.float64)
            precision = found / np.maximum(total, 1.0)  # 0 before the first image that was drawn
            highest = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            values[row] = rule(Curve(found, highest, np.maximum(positives, 1.0)))
    values[:, positives == 0] = np.nan
    return values


def eleven_points(curve: Curve) -> NDArray[np.float64]:
    """VOC 2007: mean of the precision at recall 0, 0.1 … 1.

    Recall is compared with the levels as whole numbers (10 × found ≥ level × positives), so that a
    recall of exactly 3/10 reaches the level 0.3.
    """
    levels = np.floor_divide(10 * curve.found, curve.positives) + 1
    return _sum_of_steps(levels, curve.precision) / 11


def area_under(curve: Curve) -> NDArray[np.float64]:
    """VOC 2010 and later: the exact area under the envelope of precision over recall."""
    return _sum_of_steps(curve.found, curve.precision) / curve.positives


def recall_levels(curve: Curve) -> NDArray[np.float64]:
    """COCO: mean of the precision at recall 0, 0.01 … 1, as floats, as pycocotools does."""
    levels = np.searchsorted(RECALLS, curve.found / curve.positives, side="right")
    return _sum_of_steps(levels, curve.precision) / len(RECALLS)


def _sum_of_steps(
    levels: NDArray[np.float64] | NDArray[np.intp], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of the precision at each hit, times how many levels it is the first to reach."""
    return np.asarray((np.diff(levels, axis=0, prepend=0) * precision).sum(axis=0))


def _sum_before(drawn: Weights, chosen: NDArray[np.intp], at: NDArray[np.intp]) -> NDArray[Any]:
    """Sum of the ``chosen`` rows that stand before each of the rows ``at``."""
    sums = np.concatenate([np.zeros_like(drawn[:1]), np.cumsum(drawn[chosen], axis=0)])
    return np.asarray(sums[np.searchsorted(chosen, at)])
