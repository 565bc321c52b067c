"""Decoding written a second time, a class at a time and a box at a time, as plainly as it can be.

For tests only: `harness.decode` and `harness.suppression` must answer the same.
"""

from __future__ import annotations

import math

import numpy as np

from harness.decode import class_scores
from harness.interfaces import RawOutputs
from harness.records import Decoding

Box = list[float]


def slow_iou(one: Box, two: Box, epsilon: float = 0.0) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    areas = [max(b[2] - b[0], 0.0) * max(b[3] - b[1], 0.0) for b in (one, two)]
    return inter / (areas[0] + areas[1] - inter + epsilon)


def slow_suppress(
    ranked: list[tuple[float, int, Box]], decoding: Decoding
) -> list[tuple[float, int, Box]]:
    """What survives of one class's ``(score, rank, box)``, best first, with its last score."""
    left, kept = list(ranked), []
    least = float(np.float32(decoding.score_threshold))
    while left and len(kept) != decoding.max_per_class:
        best = max(left, key=lambda item: (item[0], -item[1]))
        left.remove(best)
        kept.append(best)
        rest = []
        for score, rank, box in left:
            overlap = slow_iou(best[2], box, decoding.iou_epsilon)
            if decoding.suppression == "hard":
                if overlap <= decoding.iou_threshold:
                    rest.append((score, rank, box))
                continue
            if decoding.suppression == "soft-gaussian":
                score *= math.exp(-overlap * overlap / decoding.sigma)
            elif overlap > decoding.iou_threshold:
                score *= 1 - overlap
            if score > least:
                rest.append((score, rank, box))
        left = rest
    return kept


def slow_box(offset: np.ndarray, prior: np.ndarray, decoding: Decoding) -> Box:
    dx, dy, dw, dh = (float(value) for value in offset)
    cx, cy, w, h = (float(value) for value in prior)
    center = cx + dx * decoding.center_variance * w, cy + dy * decoding.center_variance * h
    half = (
        w * float(np.exp(dw * decoding.size_variance)) / 2,
        h * float(np.exp(dh * decoding.size_variance)) / 2,
    )
    return [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]]


def slow_decode(
    logits: np.ndarray,
    offsets: np.ndarray,
    priors: np.ndarray,
    decoding: Decoding,
    size: tuple[int, int],
) -> list[tuple[float, int, Box]]:
    """``(score, label, pixel box)`` of one image, in the order that the docstring gives."""
    sides = (size[1], size[0], size[1], size[0])
    scores = class_scores(np.ascontiguousarray(logits.T), decoding.score)
    found = []
    for label in range(1, logits.shape[1]):
        of_class = [(float(s), p) for p, s in enumerate(scores[label - 1])]
        passed = [(s, p) for s, p in of_class if s > np.float32(decoding.score_threshold)]
        passed.sort(key=lambda item: (-item[0], item[1]))
        ranked = []
        for rank, (score, prior) in enumerate(passed[: decoding.candidates]):
            box = slow_box(offsets[prior], priors[prior], decoding)
            if not all(map(math.isfinite, box)):
                continue
            if decoding.clip == "before":
                box = [min(max(value, 0.0), 1.0) for value in box]
            if slow_pixels(box, sides, cut=True) is not None:
                ranked.append((score, rank, box))
        for score, rank, box in slow_suppress(ranked, decoding):
            pixels = slow_pixels(box, sides, cut=decoding.clip != "never")
            first_score, prior = passed[rank]
            found.append(((-np.float32(score), -first_score, prior, label), label, pixels))
    found.sort(key=lambda item: item[0])
    return [
        (float(-key[0]), label, pixels) for key, label, pixels in found[: decoding.max_detections]
    ]


def slow_pixels(box: Box, sides: tuple[int, int, int, int], *, cut: bool) -> Box | None:
    """The box in pixels, cut to the image or not; None where cutting leaves nothing."""
    scaled = [value * side for value, side in zip(box, sides, strict=True)]
    if cut:
        scaled = [min(max(value, 0.0), side) for value, side in zip(scaled, sides, strict=True)]
    pixels = [float(np.float32(value)) for value in scaled]
    return None if cut and (pixels[0] >= pixels[2] or pixels[1] >= pixels[3]) else pixels


def random_case(rng: np.random.Generator) -> tuple[RawOutputs, np.ndarray, Decoding]:
    """A small head with many ties: logits and offsets on a coarse grid, priors on a lattice."""
    priors, classes = int(rng.integers(1, 40)), int(rng.integers(2, 6))
    logits = rng.integers(-4, 5, (1, priors, classes)) / rng.choice([1.0, 2.0])
    offsets = rng.integers(-4, 5, (1, priors, 4)) * rng.choice([0.0, 1.25, 2.5])
    anchors = np.concatenate(
        [rng.integers(0, 9, (priors, 2)) / 8, rng.choice([0.125, 0.25, 0.5], (priors, 2))], 1
    )
    raw = RawOutputs(logits.astype(np.float32), offsets.astype(np.float32))
    return raw, anchors.astype(np.float32), random_policy(rng)


def random_policy(rng: np.random.Generator) -> Decoding:
    """Any combination of rules, with limits that bite on small cases."""

    def one_of(*values: object) -> object:
        return values[int(rng.integers(len(values)))]

    return Decoding(
        score=one_of("softmax", "sigmoid"),  # type: ignore[arg-type]  # values by name
        score_threshold=one_of(0.0, 0.01, 0.25, 0.5),  # type: ignore[arg-type]
        iou_threshold=one_of(0.0, 0.25, 0.45, 0.5, 1.0),  # type: ignore[arg-type]
        iou_epsilon=one_of(0.0, 1e-5),  # type: ignore[arg-type]
        suppression=one_of("hard", "soft-linear", "soft-gaussian"),  # type: ignore[arg-type]
        sigma=one_of(0.1, 0.5),  # type: ignore[arg-type]
        candidates=one_of(1, 3, 10, 200, None),  # type: ignore[arg-type]
        max_per_class=one_of(1, 2, 5, None),  # type: ignore[arg-type]
        max_detections=one_of(1, 5, 100, None),  # type: ignore[arg-type]
        clip=one_of("before", "after", "never"),  # type: ignore[arg-type]
    )
