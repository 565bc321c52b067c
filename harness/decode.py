"""From a network's raw outputs to detections: one implementation for every runtime.

What happens to one image, in this order (the policy of pytorch-ssd's predictor):

1. scores: softmax over classes, or a sigmoid per class; class 0, the background, is dropped;
2. per class, priors whose score is **above** the threshold, at most the best ``candidates``;
3. boxes from offsets and priors, unclipped, relative to the image;
4. per class, hard non-maximum suppression: best first, a box goes when its IoU with a better one
   that stays is **above** ``iou_threshold``. IoU is taken on continuous coordinates, where it does
   not change with the image's size or shape, so relative and pixel boxes agree;
5. over all classes, the best ``max_detections``, scaled to the original image and clipped to it.

Equal scores are ordered by prior index, then by class, so the answer never depends on a sort.
Candidates that leave no area inside the image, or are not finite, are dropped between 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import boxes as geometry
from harness.errors import BadInput
from harness.interfaces import Detections, RawOutputs
from harness.records import Decoding, TensorSpec

# Slack, in units of the logit, of the test that spares hopeless priors the softmax: far above
# float32 rounding of a logit difference, far below anything that costs time.
SLACK = 1e-2


def decode(
    outputs: RawOutputs,
    *,
    priors: NDArray[np.float32],
    decoding: Decoding,
    sizes: Sequence[tuple[int, int]],
    tensors: tuple[TensorSpec, TensorSpec] | None = None,
) -> list[Detections]:
    """Detections of a batch, one per image, best score first.

    Args:
        outputs: logits ``(n, priors, classes)`` and offsets ``(n, priors, 4)``, float or quantized.
        priors: ``(priors, 4)`` center form, relative to the image.
        sizes: ``(height, width)`` of each original image in pixels.
        tensors: specs of logits and offsets, whose scale and zero point dequantize them.

    Raises:
        BadInput: shapes that do not fit each other.
    """
    _check(outputs, priors, sizes)
    logits_spec, offsets_spec = tensors or (None, None)
    found = []
    for logits, offsets, size in zip(outputs.logits, outputs.offsets, sizes, strict=True):
        rows, labels, scores = _candidates(dequantize(logits, logits_spec), decoding)
        found.append(
            _detections(
                rows,
                labels,
                scores,
                dequantize(offsets[rows], offsets_spec),
                priors,
                decoding,
                size,
            )
        )
    return found


def dequantize(values: NDArray[Any], spec: TensorSpec | None) -> NDArray[np.float32]:
    """Real values, float32: ``scale * (values - zero_point)`` where ``spec`` has a scale."""
    if spec is None or spec.scale is None:
        return values.astype(np.float32, copy=False)
    return (values.astype(np.float32) - np.float32(spec.zero_point or 0)) * np.float32(spec.scale)


def class_scores(logits: NDArray[np.float32], score: str) -> NDArray[np.float32]:
    """Scores of the classes without background, ``(classes - 1, n)``, from ``(n, classes)``.

    Each value depends on its own prior only, to the last bit: the sum over classes is taken in
    class order, not in an order that numpy chooses by the array's shape.
    """
    columns = np.ascontiguousarray(logits.T)
    with np.errstate(over="ignore", invalid="ignore"):
        if score == "sigmoid":
            return np.asarray(1.0 / (1.0 + np.exp(-columns[1:])), dtype=np.float32)
        powers = np.exp(columns - columns.max(axis=0))
        total = powers[0].copy()
        for row in powers[1:]:
            total += row
        return np.asarray(powers[1:] / total, dtype=np.float32)


def suppress(
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    iou_threshold: float,
    limit: int,
) -> NDArray[np.int64]:
    """Indices of the boxes that survive hard suppression within their class, best first.

    Args:
        boxes: ``(n, 4)`` corner form, **grouped by class, best first within each class**.
        labels: ``(n,)`` ascending.
        order: ``(n,)`` indices of all boxes, best first over all classes.
        limit: stop after so many survivors: those that follow would be worse.
    """
    ends = np.searchsorted(labels, labels, side="right").tolist()
    low, high = np.ascontiguousarray(boxes[:, :2].T), np.ascontiguousarray(boxes[:, 2:].T)
    areas = geometry.area(boxes)
    gone = np.zeros(len(boxes), dtype=np.bool_)
    flags = gone.data  # reads a single flag faster than the array does
    kept: list[int] = []
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is no overlap: not above any
        for best in order.tolist():
            if flags[best]:
                continue
            kept.append(best)
            if len(kept) == limit:
                break
            rest = slice(best + 1, ends[best])
            sides = np.minimum(high[:, rest], high[:, best, None])
            sides -= np.maximum(low[:, rest], low[:, best, None])
            np.maximum(sides, 0.0, out=sides)
            inter = sides[0] * sides[1]
            union = areas[best] + areas[rest]
            union -= inter
            inter /= union
            gone[rest] |= inter > iou_threshold
    return np.array(kept, dtype=np.int64)


def _candidates(
    logits: NDArray[np.float32], decoding: Decoding
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Prior, label and score of each candidate, grouped by class, best first, ties by prior."""
    hopeful = np.flatnonzero(_may_pass(logits, decoding))
    scores = class_scores(logits[hopeful], decoding.score)
    passed = scores > decoding.score_threshold
    crowded = np.flatnonzero(passed.sum(axis=1) > decoding.candidates)
    if crowded.size:
        place = scores.shape[1] - decoding.candidates
        least = np.partition(scores[crowded], place, axis=1)[:, place, None]
        passed[crowded] &= scores[crowded] >= least
    classes, columns = np.nonzero(passed)
    values = scores[classes, columns]
    ranked = np.lexsort((-values, classes))  # stable: ties stay in the order of their priors
    classes = classes[ranked]
    place_in_class = np.arange(len(classes)) - np.searchsorted(classes, classes)
    best = place_in_class < decoding.candidates
    ranked = ranked[best]
    return hopeful[columns[ranked]], classes[best] + 1, values[ranked]


def _may_pass(logits: NDArray[np.float32], decoding: Decoding) -> NDArray[np.bool_]:
    """Priors that may hold a candidate: a necessary condition that needs no exponential.

    A softmax score of at least t needs ``exp(logit) > t * exp(background)``.
    """
    if decoding.score_threshold <= 0 or decoding.score_threshold >= 1:
        return np.ones(len(logits), dtype=np.bool_)
    odds = np.log(decoding.score_threshold)
    top = logits[:, 1:].max(axis=1)
    if decoding.score == "softmax":
        return np.asarray(top - logits[:, 0] > odds - SLACK)
    return np.asarray(top > odds - np.log1p(-decoding.score_threshold) - SLACK)


def _detections(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    offsets: NDArray[np.float32],
    priors: NDArray[np.float32],
    decoding: Decoding,
    size: tuple[int, int],
) -> Detections:
    """Boxes of the candidates, suppressed, in pixels of an image of ``size``."""
    height, width = size
    relative = geometry.decode(
        offsets, priors[rows], decoding.center_variance, decoding.size_variance
    )
    with np.errstate(invalid="ignore"):
        scaled = geometry.clip(relative * (width, height, width, height), height, width)
        pixels = scaled.astype(np.float32)
        usable = (pixels[:, :2] < pixels[:, 2:]).all(axis=1) & np.isfinite(relative).all(axis=1)
    if not usable.all():
        rows, labels, scores = rows[usable], labels[usable], scores[usable]
        relative, pixels = relative[usable], pixels[usable]
    order = np.lexsort((labels, rows, -scores))
    kept = suppress(relative, labels, order, decoding.iou_threshold, decoding.max_detections)
    return Detections(boxes=pixels[kept], labels=labels[kept], scores=scores[kept])


def _check(
    outputs: RawOutputs, priors: NDArray[np.float32], sizes: Sequence[tuple[int, int]]
) -> None:
    logits, offsets = outputs
    leading = f"({len(sizes)}, {len(priors)}, "
    if (
        logits.ndim != 3
        or logits.shape[:2] != (len(sizes), len(priors))
        or logits.shape[2] < 2
        or offsets.shape != (len(sizes), len(priors), 4)
    ):
        raise BadInput(
            f"outputs have logits {logits.shape} and offsets {offsets.shape}, expected"
            f" {leading}classes) and {leading}4) for these images and"
            " priors: check the order of the outputs in the manifest"
        )
