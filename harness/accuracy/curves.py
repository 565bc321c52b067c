"""Average precision from matched detections, for one data set or for many resamples of it.

Matching is the costly half of mAP and does not depend on which images are drawn: it is done once,
into one `Matches` per class. A resample is a weight per image, how often it was drawn; every
detection and ground-truth object counts as often as its image.

Precision only matters where a detection is a hit (elsewhere it is no better than at the hit
before), so curves are held at the hits only: a few hundred points instead of thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
"""``(resamples, images)``: how often each image counts in each resample, whole numbers.

Sums of them are exact up to 2**24 detections in a class.
"""
RECALLS = np.linspace(0.0, 1.0, 101)
# Weights held at once: resamples × detections of a class, 4 bytes each, so 64 MiB.
BLOCK = 1 << 24


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
    """Precision and recall at the hits, ``(resamples, hits)``; recall rises along the hits.

    Attributes:
        found: objects found so far (weighted).
        precision: the highest precision at this recall or a higher one.
        positives: ``(resamples, 1)`` objects there are (weighted), at least 1.
    """

    found: Floats
    precision: Floats
    positives: Floats


Rule = Callable[[Curve], Floats]
"""Average precision ``(resamples,)`` of a curve."""


def eleven_points(curve: Curve) -> Floats:
    """VOC 2007: mean of the precision at recall 0, 0.1 … 1.

    Recall is compared with the levels as whole numbers (10 × found ≥ level × positives), so that a
    recall of exactly 3/10 reaches the level 0.3.
    """
    levels = np.floor_divide(10 * curve.found, curve.positives) + 1
    return sum_of_steps(levels, curve.precision) / 11


def area_under(curve: Curve) -> Floats:
    """VOC 2010 and later: the exact area under the envelope of precision over recall."""
    return sum_of_steps(curve.found, curve.precision) / curve.positives[:, 0]


def recall_levels(curve: Curve) -> Floats:
    """COCO: mean of the precision at recall 0, 0.01 … 1, as floats, as pycocotools does."""
    levels = np.searchsorted(RECALLS, curve.found / curve.positives, side="right")
    return sum_of_steps(levels, curve.precision) / len(RECALLS)


def average_precision(matches: Matches, weights: Weights, *rules: Rule) -> Floats:
    """Average precision ``(rules, t, resamples)``, NaN where a resample holds no object."""
    positives = np.asarray(weights @ matches.positives, dtype=np.float64)
    hits = np.flatnonzero(matches.hit.any(axis=0))
    values = np.zeros((len(rules), len(matches.hit), len(weights)))
    if hits.size:
        counted = _counted(matches.image, weights, hits)
        for row, (hit, ignored) in enumerate(zip(matches.hit, matches.ignored, strict=True)):
            at = np.flatnonzero(hit)
            if at.size:
                total: Weights = counted[:, np.searchsorted(hits, at)]
                if ignored.any():
                    total -= _ignored_before(matches.image, weights, np.flatnonzero(ignored), at)
                curve = _curve(weights[:, matches.image[at]], total, positives)
                for index, rule in enumerate(rules):
                    values[index, row] = rule(curve)
    values[:, :, positives == 0] = np.nan
    return values


def means(classes: Sequence[Matches], weights: Weights, *rules: Rule) -> Floats:
    """Mean over classes ``(rules, t, resamples)``, NaN where no class has an object."""
    total, known = np.zeros((2, len(rules), len(classes[0].hit), len(weights)))
    for matches in classes:
        height = max(1, BLOCK // max(1, len(matches.image)))
        for start in range(0, len(weights), height):
            block = slice(start, start + height)
            values = average_precision(matches, weights[block], *rules)
            known[..., block] += ~np.isnan(values)
            total[..., block] += np.nan_to_num(values, nan=0.0)
    return np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)


def _curve(found: Weights, total: Weights, positives: Floats) -> Curve:
    """The curve of hits that weigh ``found``, with ``total`` detections so far at each."""
    so_far = np.cumsum(found, axis=1, dtype=np.float64)
    precision = so_far / np.maximum(total, 1)  # 0 before the first image that was drawn
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return Curve(so_far, highest, np.maximum(positives, 1.0)[:, None])


def _counted(image: NDArray[np.int64], weights: Weights, hits: NDArray[np.intp]) -> Weights:
    """Detections up to and with each of ``hits``, ``(resamples, hits)``.

    Summed between hits first: there are many detections and few hits.
    """
    starts = np.concatenate([[0], hits[:-1] + 1])
    between = np.add.reduceat(weights.take(image[: hits[-1] + 1], axis=1), starts, axis=1)
    return np.asarray(np.cumsum(between, axis=1))


def _ignored_before(
    image: NDArray[np.int64], weights: Weights, ignored: NDArray[np.intp], at: NDArray[np.intp]
) -> Weights:
    """Ignored detections before each of ``at``, ``(resamples, at)``."""
    sums = np.zeros((len(weights), len(ignored) + 1), dtype=np.float32)
    np.cumsum(weights[:, image[ignored]], axis=1, out=sums[:, 1:])
    return sums[:, np.searchsorted(ignored, at)]


def sum_of_steps(levels: Floats | NDArray[np.intp], precision: Floats) -> Floats:
    """Sum over hits of the precision, times how many levels the hit is the first to reach."""
    steps = np.diff(levels, axis=1, prepend=0).astype(np.float64, copy=False)
    return np.asarray(np.einsum("rh,rh->r", steps, precision))
