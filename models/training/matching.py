"""Which prior learns which object, and the numbers it shall predict (SSD, section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.records import Decoding


class Targets(NamedTuple):
    """What the heads shall say about one image.

    Attributes:
        labels: ``(priors,)`` int64, 0 where the prior is background.
        offsets: ``(priors, 4)`` float32 ``(dx, dy, dw, dh)``; zeros where it is background.
    """

    labels: NDArray[np.int64]
    offsets: NDArray[np.float32]


def corners(priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(cx, cy, w, h)`` to ``(xmin, ymin, xmax, ymax)``, ``(n, 4)`` float32."""
    half = priors[:, 2:] / 2
    return np.concatenate([priors[:, :2] - half, priors[:, :2] + half], axis=1)


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(len(a), len(b))`` IoU of corner-form boxes; 0 for boxes without area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = np.maximum(area_a[:, None] + area_b[None] - shared, np.float32(1e-12))
    iou: NDArray[np.float32] = shared / union
    return iou


def assign(
    boxes: NDArray[np.float32], prior_corners: NDArray[np.float32], least: float
) -> NDArray[np.int64]:
    """``(priors,)`` index of the object that each prior learns, -1 for background.

    Every object gets a prior of its own: objects choose in the order of their best overlap, each
    among the priors that no object chose before it. The other priors take the object they overlap
    most, if the IoU is at least ``least``.
    """
    if not len(boxes):
        return np.full(len(prior_corners), -1, np.int64)
    iou = pairwise_iou(boxes, prior_corners)
    chosen = np.where(iou.max(axis=0) >= least, iou.argmax(axis=0), -1)
    free = iou.copy()
    for _ in range(min(len(boxes), len(prior_corners))):
        box, prior = np.unravel_index(free.argmax(), free.shape)
        chosen[prior] = box
        free[box], free[:, prior] = -1, -1
    return chosen


def encode(
    boxes: NDArray[np.float32], priors: NDArray[np.float32], decoding: Decoding
) -> NDArray[np.float32]:
    """Offsets that decode to ``boxes``, one per prior; the inverse of the harness's decoding.

    Args:
        boxes: ``(n, 4)`` corner form, relative.
        priors: ``(n, 4)`` center form, relative.
    """
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1e-4))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    shift = (centres - priors[:, :2]) / priors[:, 2:] / decoding.center_variance
    stretch = np.log(sides / priors[:, 2:]) / decoding.size_variance
    return np.concatenate([shift, stretch], axis=1).astype(np.float32)


def match(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    priors: NDArray[np.float32],
    decoding: Decoding,
    least: float,
) -> Targets:
    """Targets of one image whose ``boxes`` are in corner form, relative to the image."""
    chosen = assign(boxes, corners(priors), least)
    hit = chosen >= 0
    targets = Targets(np.zeros(len(priors), np.int64), np.zeros((len(priors), 4), np.float32))
    targets.labels[hit] = labels[chosen[hit]]
    targets.offsets[hit] = encode(boxes[chosen[hit]], priors[hit], decoding)
    return targets
