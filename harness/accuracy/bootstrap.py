"""How sure a mean average precision is: 95 % percentile bootstrap over images.

Images, not detections, are the independent draws. A resample draws as many images as there are,
with replacement; matching happened once, so a resample only weighs images (see `curves`). Copies
of an image stand together in the score order. A class whose objects were not drawn stands outside
that resample's mean, as a class without objects does in the estimate.

Two sets of detections of the same images are compared with the same draws for both: what makes an
image hard is then in both figures and cancels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.accuracy.curves import Weights

PERCENTILES = (2.5, 97.5)


class Interval(NamedTuple):
    """A 95 % interval; ``resamples`` are those in which the figure was defined."""

    low: float
    high: float
    resamples: int


class Difference(NamedTuple):
    """Second minus first with its 95 % interval, and what that means in words."""

    estimate: float
    low: float
    high: float
    verdict: str


def draw(images: int, resamples: int, seed: int) -> Weights:
    """``(resamples, images)``: how often each image is drawn in each resample; rows sum to n."""
    if not images:
        return np.zeros((resamples, 0), dtype=np.float32)
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = generator.multinomial(images, np.full(images, 1.0 / images), size=resamples)
    return counts.astype(np.float32)


def interval(values: NDArray[np.float64]) -> Interval | None:
    """The middle 95 % of resampled ``values``; None where none is defined."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    low, high = np.percentile(defined, PERCENTILES)
    return Interval(float(low), float(high), int(defined.size))


def paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference | None:
    """Difference between two figures of the same images, second minus first.

    Args:
        first, second: ``(1 + resamples,)``: the figure over all images, then over each resample,
            drawn alike for both.

    Returns:
        None where the figure is undefined.
    """
    change = second - first
    limits = interval(change[1:])
    if limits is None or np.isnan(change[0]):
        return None
    return Difference(float(change[0]), limits.low, limits.high, verdict(limits.low, limits.high))


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of a difference in mAP (0..1) says, in AP points (0..100)."""
    if low == high == 0:
        return "no difference on these images"
    if high < 0:
        return f"drop of {_points(-high)} to {_points(-low)} AP"
    if low > 0:
        return f"gain of {_points(low)} to {_points(high)} AP"
    if low == 0:
        return f"no drop, gain of up to {_points(high)} AP"
    return f"no drop larger than {_points(-low)} AP"


def _points(value: float) -> str:
    """AP points to one decimal, rounded away from nothing: a small difference is never 0.0."""
    points = 100 * value
    return f"{points:.1f}" if points >= 0.05 else f"{points:.1g}"
