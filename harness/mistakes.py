"""What a detector got right and wrong in each image, and why: the evidence behind a score.

Only what an application would show counts, detections from a score up. Within an image, detections
go best score first, and each takes the free object of its class with the highest IoU of at least
0.5: a hit. What is left over is, in this order, a confusion (a free object of another class), a
duplicate (its object was taken), badly placed (an object of its class with an IoU from 0.1) or
nothing that is there. Objects marked difficult or crowd, and detections on them, count neither way.

This is for looking at. The mean average precision has its own matching, over all scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.accuracy.coco_matching import SIZE_RANGES
from harness.boxes import area, iou
from harness.interfaces import Detections, Truth

Indices = NDArray[np.int64]
FOUND_IOU = 0.5
NEAR_IOU = 0.1
SIZES = ("small", "medium", "large")


class Kind(IntEnum):
    """What a detection is."""

    HIDDEN = 0
    IGNORED = 1
    HIT = 2
    CONFUSED = 3
    DUPLICATE = 4
    PLACED = 5
    NOTHING = 6


FALSE = (Kind.CONFUSED, Kind.DUPLICATE, Kind.PLACED, Kind.NOTHING)
"""Kinds of false positives."""


class Fate(IntEnum):
    """What became of an object."""

    IGNORED = 0
    FOUND = 1
    CONFUSED = 2
    PLACED = 3
    MISSED = 4


class Mistakes(NamedTuple):
    """One image.

    Attributes:
        kinds: ``(d,)`` `Kind` of each detection.
        targets: ``(d,)`` the object that a detection belongs to, -1 where there is none.
        fates: ``(t,)`` `Fate` of each object.
    """

    kinds: Indices
    targets: Indices
    fates: Indices

    @property
    def errors(self) -> int:
        """False positives and objects that were not found."""
        wrong = np.isin(self.kinds, FALSE).sum()
        return int(wrong + (self.fates > Fate.FOUND).sum())


def judge(truth: Truth, found: Detections, shown_score: float) -> Mistakes:
    """Judge one image's detections with a score of ``shown_score`` or more."""
    counts = ~(truth.difficult | truth.crowd)
    kinds = np.full(len(found.labels), Kind.NOTHING, np.int64)
    kinds[found.scores < shown_score] = Kind.HIDDEN
    targets = np.full(len(found.labels), -1, np.int64)
    fates = np.where(counts, Fate.MISSED, Fate.IGNORED).astype(np.int64)
    overlap = iou(found.boxes, truth.boxes)
    same = found.labels[:, None] == truth.labels
    order = np.argsort(-found.scores, kind="stable")
    order = order[kinds[order] != Kind.HIDDEN]
    if not truth.labels.size:
        return Mistakes(kinds, targets, fates)
    free = counts.copy()
    _take(order, np.where(same, overlap, -1.0), free, Kind.HIT, kinds, targets)
    fates[targets[kinds == Kind.HIT]] = Fate.FOUND
    _ignore(order, _covered(found, truth, overlap) & same & ~counts, kinds)
    rest = order[kinds[order] == Kind.NOTHING]
    _take(rest, np.where(same, -1.0, overlap), free, Kind.CONFUSED, kinds, targets)
    fates[targets[kinds == Kind.CONFUSED]] = Fate.CONFUSED
    for index in rest[kinds[rest] == Kind.NOTHING].tolist():
        near = np.where(same[index] & counts, overlap[index], -1.0)
        target = int(near.argmax())
        if near[target] >= NEAR_IOU:
            taken = near[target] >= FOUND_IOU
            kinds[index] = Kind.DUPLICATE if taken else Kind.PLACED
            targets[index] = target
            if fates[target] == Fate.MISSED:
                fates[target] = Fate.PLACED
    return Mistakes(kinds, targets, fates)


def _take(
    order: Indices,
    overlap: NDArray[np.float64],
    free: NDArray[np.bool_],
    kind: Kind,
    kinds: Indices,
    targets: Indices,
) -> None:
    """Let detections take free objects, each the one with the highest overlap."""
    for index in order.tolist():
        choice = np.where(free, overlap[index], -1.0)
        target = int(choice.argmax())
        if choice[target] >= FOUND_IOU:
            free[target] = False
            kinds[index], targets[index] = kind, target


def _covered(found: Detections, truth: Truth, overlap: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each detection lies on each object: half of it inside, for a crowd, as in COCO."""
    own = area(found.boxes)[:, None]
    inside = overlap * (own + area(truth.boxes)) / (1 + overlap)
    return np.where(truth.crowd, inside >= FOUND_IOU * own, overlap >= FOUND_IOU)


def _ignore(order: Indices, on_these: NDArray[np.bool_], kinds: Indices) -> None:
    """Detections on objects that do not count are no mistakes."""
    for index in order[on_these[order].any(axis=1)].tolist():
        if kinds[index] != Kind.HIT:
            kinds[index] = Kind.IGNORED


def confusion(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    judged: Sequence[Mistakes],
    classes: int,
) -> Indices:
    """Counts ``(classes, classes)``: row is the object's class, column the detection's.

    Row 0 is what is not there (false positives without an object of another class), column 0 what
    was not found.
    """
    table = np.zeros((classes, classes), np.int64)
    for truth, seen, one in zip(truths, found, judged, strict=True):
        pair = np.isin(one.kinds, (Kind.HIT, Kind.CONFUSED))
        np.add.at(table, (truth.labels[one.targets[pair]], seen.labels[pair]), 1)
        alone = np.isin(one.kinds, (Kind.DUPLICATE, Kind.PLACED, Kind.NOTHING))
        np.add.at(table, (np.zeros(alone.sum(), np.int64), seen.labels[alone]), 1)
        lost = np.isin(one.fates, (Fate.PLACED, Fate.MISSED))
        np.add.at(table, (truth.labels[lost], np.zeros(lost.sum(), np.int64)), 1)
    return table


def by_size(truths: Sequence[Truth], judged: Sequence[Mistakes]) -> Indices:
    """Objects ``(3, 5)`` by `SIZES` and `Fate`, with COCO's limits of 32² and 96² pixels.

    The area is the data set's own where it has one, else the box's.
    """
    table = np.zeros((len(SIZES), len(Fate)), np.int64)
    limits = [SIZE_RANGES[size][1] for size in SIZES[:-1]]
    for truth, one in zip(truths, judged, strict=True):
        sides = area(truth.boxes) if truth.area is None else truth.area
        np.add.at(table, (np.searchsorted(limits, sides), one.fates), 1)
    return table
