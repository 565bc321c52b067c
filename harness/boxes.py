"""Box arithmetic in numpy: overlap, clipping, and SSD's encoding against prior boxes.

Corner form is ``(xmin, ymin, xmax, ymax)``, center form is ``(cx, cy, w, h)``. Coordinates are
continuous: a box that covers one whole pixel has width 1, so no formula here adds or subtracts 1.
Pascal VOC's inclusive 1-based pixel corners become this form by subtracting 1 from xmin and ymin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]


def area(boxes: NDArray[Any]) -> Boxes:
    """Area of ``(..., 4)`` corner boxes, ``(...)`` float64; 0 for a box turned inside out."""
    sides = np.maximum(boxes[..., 2:].astype(np.float64) - boxes[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def iou(first: NDArray[Any], second: NDArray[Any], epsilon: float = 0.0) -> Boxes:
    """Intersection over union of every pair, ``(n, m)`` float64 in 0..1.

    Args:
        first: ``(n, 4)`` corner boxes.
        second: ``(m, 4)`` corner boxes in the same units.
        epsilon: added to the union. pytorch-ssd adds 1e-5, which weakens the suppression of
            small boxes where boxes are relative.

    A pair whose union has no area overlaps by 0, identical or not.
    """
    one, two = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    np.maximum(sides, 0.0, out=sides)
    inter = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None] - inter + epsilon
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))


def to_corners(boxes: NDArray[Any]) -> Boxes:
    """``(..., 4)`` center form to corner form, float64."""
    center, half = boxes[..., :2].astype(np.float64), boxes[..., 2:].astype(np.float64) / 2
    return np.concatenate([center - half, center + half], axis=-1)


def to_centers(boxes: NDArray[Any]) -> Boxes:
    """``(..., 4)`` corner form to center form, float64."""
    low, high = boxes[..., :2].astype(np.float64), boxes[..., 2:].astype(np.float64)
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def clip(boxes: NDArray[Any], height: float, width: float) -> Boxes:
    """``(..., 4)`` corner boxes cut to the image ``0..width`` by ``0..height``, float64."""
    return np.clip(boxes.astype(np.float64), 0.0, np.array([width, height, width, height], float))


def encode(
    boxes: NDArray[Any], priors: NDArray[Any], center_variance: float, size_variance: float
) -> Boxes:
    """Offsets ``(dx, dy, dw, dh)`` that turn ``priors`` into ``boxes`` (Liu et al. 2016, eq. 2).

    Args:
        boxes: ``(..., 4)`` corner boxes with positive sides, in the priors' units.
        priors: ``(..., 4)`` center form.

    Returns:
        ``(..., 4)`` float64, each divided by its variance.
    """
    centers, anchors = to_centers(boxes), priors.astype(np.float64)
    shift = (centers[..., :2] - anchors[..., :2]) / anchors[..., 2:] / center_variance
    growth = np.log(centers[..., 2:] / anchors[..., 2:]) / size_variance
    return np.concatenate([shift, growth], axis=-1)


def decode(
    offsets: NDArray[Any], priors: NDArray[Any], center_variance: float, size_variance: float
) -> Boxes:
    """Corner boxes that ``offsets`` make of ``priors``: the inverse of `encode`.

    Args:
        offsets: ``(..., 4)`` ``(dx, dy, dw, dh)``.
        priors: ``(..., 4)`` center form.

    Returns:
        ``(..., 4)`` float64 corner form, not clipped; sizes that overflow are infinite.
    """
    moves, anchors = offsets.astype(np.float64), priors.astype(np.float64)
    center = anchors[..., :2] + moves[..., :2] * center_variance * anchors[..., 2:]
    with np.errstate(over="ignore", invalid="ignore"):
        half = anchors[..., 2:] * np.exp(moves[..., 2:] * size_variance) / 2
        return np.concatenate([center - half, center + half], axis=-1)
