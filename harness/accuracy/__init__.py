"""How good detections are: VOC and COCO mean average precision with bootstrap intervals.

`evaluate` scores one set of detections; `compare` says what a compressed model lost against its
float parent on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.accuracy.bootstrap import draw, interval, paired
from harness.accuracy.coco import coco_matches, coco_summary
from harness.accuracy.curves import (
    Matches,
    Rule,
    Weights,
    area_under,
    average_precision,
    eleven_points,
    means,
    recall_levels,
)
from harness.accuracy.operating import operating_point
from harness.accuracy.pytorch_ssd import eleven_floats, pytorch_ssd_matches
from harness.accuracy.stopping import Compared, image_cost
from harness.accuracy.voc import voc_matches, voc_result
from harness.errors import BadInput
from harness.interfaces import Detections, Truth
from harness.records import Measurement

RESAMPLES = 1000
UNDEFINED = "no image holds an object that counts, so there is no average precision"
DEFINITIONS: dict[str, dict[str, str]] = {
    "accuracy.voc07_map": {"definition": "VOC 2007, 11 recalls", "iou": "0.5"},
    "accuracy.voc12_map": {"definition": "VOC 2012, area under the curve", "iou": "0.5"},
    "accuracy.coco_map": {"definition": "COCO, 101 recalls", "iou": "0.5:0.05:0.95"},
    "accuracy.coco_map50": {"definition": "COCO, 101 recalls", "iou": "0.5"},
    "accuracy.pytorch_ssd_map": {
        "definition": "pytorch-ssd's evaluator, 11 recalls",
        "iou": "above 0.5",
    },
}
"""The mean average precisions of `evaluate`, in its order."""
SHOWN_SCORE, SHOWN_IOU = 0.5, 0.5
LOOK_RESAMPLES = 400
"""Enough for a standard error; a look takes no percentile."""
ALONE: dict[str, tuple[Callable[..., list[Matches]], Rule]] = {
    "accuracy.voc07_map": (voc_matches, eleven_points),
    "accuracy.voc12_map": (voc_matches, area_under),
    "accuracy.coco_map": (coco_matches, recall_levels),
    "accuracy.coco_map50": (coco_matches, recall_levels),
}
"""How the figures that a question may be about are computed one at a time."""


def evaluate(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    shown_score: float = SHOWN_SCORE,
    shown_iou: float = SHOWN_IOU,
) -> tuple[Measurement, ...]:
    """Mean average precisions (see `DEFINITIONS`), precision, recall and F1, all 0..1.

    Each has a 95 % interval over images.

    Args:
        truths: ground truth of each image.
        detections: what was found in each image, in the same order.
        sizes: ``(height, width)`` of each image in pixels.
        labels: class names, background first.
        shown_score, shown_iou: precision, recall and F1 are those of detections from this score
            up, which are right from this overlap up.

    Returns:
        Measurements whose conditions hold ``definition``, ``iou``, ``images``, ``resamples``,
        ``seed``, ``ci95`` and ``per_class``, and in ``accuracy.coco_map`` all COCO figures under
        ``coco``. What no object defines is None, with a ``reason`` beside the metric's value.

    Raises:
        BadInput: different numbers of images, labels out of range, values that are not finite.
    """
    _check_places(detections, sizes)
    voc = voc_matches(truths, detections, len(labels))
    coco = coco_summary(truths, detections, labels)
    ssd = pytorch_ssd_matches(truths, detections, len(labels))
    voc07, voc12 = (voc_result(voc, labels, rule) for rule in (eleven_points, area_under))
    of_ssd = voc_result(ssd, labels, eleven_floats)
    estimates = voc07.mean, voc12.mean, coco.figures["map"], coco.figures["map50"], of_ssd.mean
    per_class = (
        voc07.per_class,
        voc12.per_class,
        coco.per_class,
        coco.per_class50,
        of_ssd.per_class,
    )
    weights = draw(len(truths), resamples, seed)
    drawn = _figures(voc, coco.matches, ssd, weights)
    found = []
    for metric, value, values, classes in zip(
        DEFINITIONS, estimates, drawn, per_class, strict=True
    ):
        limits = None if value is None else interval(values)
        conditions: dict[str, Any] = {
            **DEFINITIONS[metric],
            "images": len(truths),
            "resamples": resamples,
            "seed": seed,
            "ci95": None if limits is None else [limits.low, limits.high],
            "per_class": classes,
        }
        if metric == "accuracy.coco_map":
            conditions["coco"] = coco.figures
        if value is None:
            conditions["reason"] = UNDEFINED
        found.append(Measurement(metric=metric, value=value, unit="1", conditions=conditions))
    shown = operating_point(
        truths, detections, labels, weights, seed=seed, score=shown_score, iou=shown_iou
    )
    return (*found, *shown)


def compare(
    truths: Sequence[Truth],
    parent: Sequence[Detections],
    child: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Measurement, ...]:
    """What ``child`` changes against ``parent`` on the same images: a paired bootstrap.

    Returns:
        ``accuracy.<figure>_change`` for each of `DEFINITIONS`: child minus parent with
        ``ci95`` and a ``verdict`` in words, in AP points.

    Raises:
        BadInput: as `evaluate`.
    """
    _check_places([*parent, *child], [*sizes, *sizes])
    weights = _with_all(draw(len(truths), resamples, seed))
    before, after = (
        _figures(
            voc_matches(truths, detections, len(labels)),
            coco_matches(truths, detections, len(labels)),
            pytorch_ssd_matches(truths, detections, len(labels)),
            weights,
        )
        for detections in (parent, child)
    )
    found = []
    for metric, first, second in zip(DEFINITIONS, before, after, strict=True):
        change = paired(first, second)
        conditions: dict[str, Any] = {
            **DEFINITIONS[metric],
            "images": len(truths),
            "resamples": resamples,
            "seed": seed,
            "ci95": None if change is None else [change.low, change.high],
            "verdict": None if change is None else change.verdict,
        }
        if change is None:
            conditions["reason"] = UNDEFINED
        value = None if change is None else change.estimate
        found.append(
            Measurement(metric=f"{metric}_change", value=value, unit="1", conditions=conditions)
        )
    return tuple(found)


def compared(
    metric: str,
    truths: Sequence[Truth],
    parent: Sequence[Detections],
    child: Sequence[Detections],
    classes: int,
    *,
    seed: int,
    resamples: int = LOOK_RESAMPLES,
) -> Compared:
    """One of `DEFINITIONS` of two models on the same images, over all of them and resampled.

    Raises:
        BadInput: as `evaluate`.
    """
    matches_of, rule = ALONE[metric]
    weights = _with_all(draw(len(truths), resamples, seed))
    before, after = (matches_of(truths, found, classes) for found in (parent, child))
    values = [means(matches, weights, rule)[0] for matches in (before, after)]
    at = slice(0, 1) if metric == "accuracy.coco_map50" else slice(None)
    known = [average_precision(one, weights[:1], rule)[0, at, 0].mean() for one in before]
    first, second = (value[at].mean(axis=0) for value in values)
    return Compared(first, second, image_cost(before, np.array(known)))


def _figures(
    voc: Sequence[Matches], coco: Sequence[Matches], ssd: Sequence[Matches], weights: Weights
) -> tuple[NDArray[np.float64], ...]:
    """The figures of `DEFINITIONS` in each resample, each ``(resamples,)``, NaN where undefined."""
    by_threshold = means(coco, weights, recall_levels)[0]
    voc07, voc12 = means(voc, weights, eleven_points, area_under)[:, 0]
    of_ssd = means(ssd, weights, eleven_floats)[0, 0]
    return voc07, voc12, by_threshold.mean(axis=0), by_threshold[0], of_ssd


def _with_all(weights: Weights) -> Weights:
    """``weights`` behind a first row in which every image counts once."""
    return np.concatenate([np.ones_like(weights[:1]), weights])


def _check_places(detections: Sequence[Detections], sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse detections that are not in pixels of their own image.

    Raises:
        BadInput: another number of sizes, or a box that lies wholly outside its image.
    """
    if len(sizes) != len(detections):
        raise BadInput(f"{len(detections)} images have detections and {len(sizes)} have a size")
    for index, (found, (height, width)) in enumerate(zip(detections, sizes, strict=True)):
        outside = (found.boxes[:, :2] > (width, height)) | (found.boxes[:, 2:] < 0)
        if outside.any():
            box = found.boxes[np.flatnonzero(outside.any(axis=1))[0]].tolist()
            raise BadInput(
                f"image {index} is {width} × {height} pixels and has a detection at {box}, outside"
                " of it: give boxes in pixels of the original image"
            )
