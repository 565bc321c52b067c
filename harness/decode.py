"""From a network's raw outputs to detections: one implementation for every runtime.

What happens to one image, in this order; `harness.policies` names the combinations in use:

1. scores: softmax over classes, a sigmoid per class, or what the file answers; class 0, the
   background, is dropped;
2. per class, priors whose score is **above** the threshold, at most the best ``candidates``;
3. boxes from offsets and priors, relative to the image, clipped to it now where ``clip`` is
   ``before``;
4. per class, non-maximum suppression, hard or soft (`harness.suppression`), at most
   ``max_per_class``. IoU is taken on continuous coordinates, where it does not change with the
   image's size or shape, so relative and pixel boxes agree;
5. over all classes, the best ``max_detections``, scaled to the original image and, where ``clip``
   is ``after``, clipped to it.

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
from harness.suppression import hard, soft

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


def decode_scored(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    *,
    decoding: Decoding,
    sizes: Sequence[tuple[int, int]],
) -> list[Detections]:
    """Detections of a batch whose scores and boxes were computed elsewhere: steps 2, 4 and 5.

    Args:
        scores: ``(n, priors, classes)``, the background first.
        boxes: ``(n, priors, 4)`` corner form, relative to the image, unclipped.
        sizes: ``(height, width)`` of each original image in pixels.

    Raises:
        BadInput: shapes that do not fit each other.
    """
    if scores.ndim != 3 or boxes.shape != (*scores.shape[:2], 4) or len(scores) != len(sizes):
        raise BadInput(
            f"outputs have scores {scores.shape} and boxes {boxes.shape} for {len(sizes)} images,"
            " expected (n, priors, classes) and (n, priors, 4): check the order of the outputs in"
            " the manifest"
        )
    found = []
    for score, box, size in zip(scores, boxes, sizes, strict=True):
        rows, labels, values = _select(np.ascontiguousarray(score.T[1:]), decoding)
        relative = box[rows].astype(np.float64)
        found.append(_survivors(labels, values, relative, decoding, size))
    return found


def dequantize(values: NDArray[Any], spec: TensorSpec | None) -> NDArray[np.float32]:
    """Real values, float32: ``scale * (values - zero_point)`` where ``spec`` has a scale."""
    if spec is None or spec.scale is None:
        return values.astype(np.float32, copy=False)
    return (values.astype(np.float32) - np.float32(spec.zero_point or 0)) * np.float32(spec.scale)


def class_scores(columns: NDArray[np.float32], score: str) -> NDArray[np.float32]:
    """Scores of the classes without background, ``(classes - 1, n)``, from logits ``(classes, n)``.

    Each value depends on its own prior only, to the last bit: the sum over classes is taken in
    class order, not in an order that numpy chooses by the array's shape.
    """
    if score == "none":
        return columns[1:]
    with np.errstate(over="ignore", invalid="ignore"):
        if score == "sigmoid":
            return np.asarray(1.0 / (1.0 + np.exp(-columns[1:])), dtype=np.float32)
        powers = np.exp(columns - columns.max(axis=0))
        total = powers[0].copy()
        for row in powers[1:]:
            total += row
        return np.asarray(powers[1:] / total, dtype=np.float32)


def _candidates(
    logits: NDArray[np.float32], decoding: Decoding
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Prior, label and score of each candidate: best first, then by prior, then by class."""
    columns = np.ascontiguousarray(logits.T)
    hopeful = np.flatnonzero(_may_pass(columns, decoding))
    rows, labels, scores = _select(class_scores(columns[:, hopeful], decoding.score), decoding)
    return hopeful[rows], labels, scores


def _select(
    scores: NDArray[np.float32], decoding: Decoding
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Column, label and score of each candidate in ``(classes - 1, n)`` scores, best first."""
    passed = scores > decoding.score_threshold
    if decoding.candidates is not None:
        crowded = np.flatnonzero(passed.sum(axis=1) > decoding.candidates)
        if crowded.size:
            passed[crowded] = _best_of(scores[crowded], decoding.candidates)
    columns, classes = np.nonzero(np.ascontiguousarray(passed.T))
    values = scores[classes, columns]
    best = np.argsort(-values, kind="stable")
    return columns[best], classes[best] + 1, values[best]


def _best_of(scores: NDArray[np.float32], limit: int) -> NDArray[np.bool_]:
    """The best ``limit`` of each row; among equal scores, the first ones."""
    place = scores.shape[1] - limit
    least = np.partition(scores, place, axis=1)[:, place, None]
    above, level = scores > least, scores == least
    room = limit - above.sum(axis=1, keepdims=True)
    return np.asarray(above | (level & (np.cumsum(level, axis=1) <= room)))


def _may_pass(columns: NDArray[np.float32], decoding: Decoding) -> NDArray[np.bool_]:
    """Priors that may hold a candidate: a necessary condition that needs no exponential.

    A sigmoid above t has a logit above log(t / (1 - t)); a softmax score above t leads the
    background's logit by as much, whatever the other classes say. Priors whose scores would not
    be finite fail it too.
    """
    threshold = decoding.score_threshold
    if decoding.score == "none":
        return np.asarray(columns[1:].max(axis=0) > threshold)
    if 0 < threshold < 1:
        least = np.log(threshold) - np.log1p(-threshold) - SLACK
    else:  # every score is above 0, none is above 1
        least = -np.inf if threshold <= 0 else np.inf
    top = columns[1:].max(axis=0)
    with np.errstate(invalid="ignore"):
        lead = top - columns[0] if decoding.score == "softmax" else top
    return np.asarray((lead > least) & np.isfinite(top))


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
    relative = geometry.decode(
        offsets, priors[rows], decoding.center_variance, decoding.size_variance
    )
    return _survivors(labels, scores, relative, decoding, size)


def _survivors(
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    relative: NDArray[np.float64],
    decoding: Decoding,
    size: tuple[int, int],
) -> Detections:
    """What suppression leaves of candidates with ``(n, 4)`` relative corner boxes, best first."""
    height, width = size
    with np.errstate(invalid="ignore"):
        if decoding.clip == "before":
            relative = geometry.clip(relative, 1.0, 1.0)
        scaled = relative * (width, height, width, height)
        inside = geometry.clip(scaled, height, width).astype(np.float32)
    pixels = scaled.astype(np.float32) if decoding.clip == "never" else inside
    usable = (inside[:, :2] < inside[:, 2:]).all(axis=1) & np.isfinite(relative).all(axis=1)
    if not usable.all():
        labels, scores = labels[usable], scores[usable]
        relative, pixels = relative[usable], pixels[usable]
    if decoding.suppression == "hard":
        kept = hard(relative, labels, decoding)
        return Detections(boxes=pixels[kept], labels=labels[kept], scores=scores[kept])
    kept, lowered = soft(relative, labels, scores, decoding)
    return Detections(boxes=pixels[kept], labels=labels[kept], scores=lowered)


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
