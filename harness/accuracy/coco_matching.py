"""COCO's matching of detections with objects, for all images and classes at once.

The rules are those of ``COCOeval.evaluateImg``. Within an image and class, detections go best score
first, at most 100. Each takes the object with the highest IoU, the later one on a tie, among those
that nobody took; an ignored object (a crowd, or one outside the size range) only where no other
one fits; a crowd may be taken by many, and its IoU is the share of the detection inside it. A
detection on an ignored object, or without object and outside the size range, is ignored.

pycocotools tries every pair in Python loops. Here, few detections touch any object of their class
(IoU at least 0.5), and nearly all of those touch just one: then the first to reach a threshold has
it, which needs no loop. Only where a detection has a choice are the rules played out one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness import boxes as geometry
from harness.accuracy.curves import Floats, Matches
from harness.interfaces import Detections, Truth

Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
Table = TypeVar("Table", bound=tuple[NDArray[Any], ...])

THRESHOLDS = np.linspace(0.5, 0.95, 10)
LIMIT = 100
SIZE_RANGES = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""Areas in pixels, both ends included, as in pycocotools."""


class Objects(NamedTuple):
    """Ground truth of all images, sorted by ``group`` (label × images + image)."""

    image: Indices
    label: Indices
    group: Indices
    boxes: Floats
    area: Floats
    crowd: Flags


class Answers(NamedTuple):
    """Detections of all images, class by class, each best score first.

    ``rank`` counts the better ones of the same image and class. Equal scores stand in the order
    of images, then in the order given.
    """

    image: Indices
    label: Indices
    group: Indices
    boxes: Floats
    area: Floats
    rank: Indices


class Pairs(NamedTuple):
    """Detections and objects of the same group that overlap enough, by detection, then object."""

    answer: Indices
    thing: Indices
    overlap: Floats


class Matching(NamedTuple):
    """All that the figures need: `Answers` and, by size range, flags ``(thresholds, answers)``.

    Attributes:
        positives: by size range, ``(classes, images)`` objects that count.
    """

    answers: Answers
    hit: dict[str, Flags]
    ignored: dict[str, Flags]
    positives: dict[str, Indices]

    def of_class(self, label: int, size: str) -> Matches:
        """`Matches` of one class in one size range."""
        chosen = self.rows(label)
        return Matches(
            self.answers.image[chosen],
            self.hit[size][:, chosen],
            self.ignored[size][:, chosen],
            self.positives[size][label],
        )

    def rows(self, label: int) -> slice:
        """Where the class's detections stand."""
        return slice(*np.searchsorted(self.answers.label, [label, label + 1]).tolist())


def match(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    classes: int,
    sizes: Sequence[str] = tuple(SIZE_RANGES),
) -> Matching:
    """Match all detections at the ten thresholds, in each of the size ranges called ``sizes``."""
    objects = _objects(truths)
    answers = _answers(detections)
    pairs = _pairs(answers, objects, classes * len(truths))
    alone, contested = _split(pairs, answers, objects)
    shared = _first_come(alone, len(answers.label))
    flags: dict[str, tuple[Flags, Flags]] = {}
    positives = {}
    played: dict[tuple[int, tuple[bool, ...]], list[tuple[int, int, int]]] = {}
    groups = list(_by_group(contested, answers))
    for size in sizes:
        low, high = SIZE_RANGES[size]
        unwanted = objects.crowd | (objects.area < low) | (objects.area > high)
        target = shared.copy()
        for index, group in enumerate(groups):
            key = index, tuple(unwanted[np.unique(group.thing)].tolist())
            if key not in played:
                played[key] = _play(group, unwanted, objects.crowd)
            for place, answer, thing in played[key]:
                target[place, answer] = thing
        matched = target >= 0
        on_unwanted = np.zeros_like(matched)
        on_unwanted[matched] = unwanted[target[matched]]
        outside = (answers.area < low) | (answers.area > high)
        flags[size] = matched & ~on_unwanted, on_unwanted | (~matched & outside)
        positives[size] = np.bincount(
            objects.group[~unwanted], minlength=classes * len(truths)
        ).reshape(classes, len(truths))
    return Matching(
        answers,
        {size: hit for size, (hit, _) in flags.items()},
        {size: ignored for size, (_, ignored) in flags.items()},
        positives,
    )


def _objects(truths: Sequence[Truth]) -> Objects:
    image = np.repeat(np.arange(len(truths)), [len(t.labels) for t in truths])
    label = np.concatenate([np.zeros(0, np.int64), *(t.labels for t in truths)])
    boxes = np.concatenate([np.zeros((0, 4)), *(t.boxes for t in truths)])
    given = (geometry.area(t.boxes) if t.area is None else t.area for t in truths)
    area = np.concatenate([np.zeros(0), *given])
    crowd = np.concatenate([np.zeros(0, np.bool_), *(t.crowd for t in truths)])
    group = label * len(truths) + image
    order = np.argsort(group, kind="stable")
    return _rows(Objects(image, label, group, boxes, area, crowd), order)


def _answers(detections: Sequence[Detections]) -> Answers:
    image = np.repeat(np.arange(len(detections)), [len(d.labels) for d in detections])
    label = np.concatenate([np.zeros(0, np.int64), *(d.labels for d in detections)])
    boxes = np.concatenate([np.zeros((0, 4)), *(d.boxes for d in detections)])
    scores = np.concatenate([np.zeros(0), *(d.scores for d in detections)])
    best = np.lexsort((-scores, label))
    image, label, boxes = image[best], label[best], boxes[best]
    group = label * len(detections) + image
    grouped = np.argsort(group, kind="stable")
    rank = np.empty_like(grouped)
    rank[grouped] = np.arange(len(group)) - np.searchsorted(group[grouped], group[grouped])
    table = Answers(image, label, group, boxes, geometry.area(boxes), rank)
    return _rows(table, np.flatnonzero(rank < LIMIT))


def _rows(table: Table, rows: NDArray[np.intp]) -> Table:
    """The same table with only these rows, in this order."""
    kind: Any = type(table)
    chosen: Table = kind(*(column[rows] for column in table))
    return chosen


def _pairs(answers: Answers, objects: Objects, groups: int) -> Pairs:
    """Pairs that reach the lowest threshold."""
    counts = np.bincount(objects.group, minlength=groups)
    firsts = np.cumsum(counts) - counts
    own = counts[answers.group]
    answer = np.repeat(np.arange(len(own)), own)
    within = np.arange(len(answer)) - np.repeat(np.cumsum(own) - own, own)
    thing = firsts[answers.group[answer]] + within
    one, two = answers.boxes[answer], objects.boxes[thing]
    sides = np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2])
    inter = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = answers.area[answer]
    union = np.where(objects.crowd[thing], area, area + geometry.area(two) - inter)
    overlap = np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
    return _rows(Pairs(answer, thing, overlap), np.flatnonzero(overlap >= THRESHOLDS[0]))


def _split(pairs: Pairs, answers: Answers, objects: Objects) -> tuple[Pairs, Pairs]:
    """Pairs of groups in which nobody has a choice, and the rest."""
    touches = np.bincount(pairs.answer, minlength=len(answers.group))
    hard = (touches[pairs.answer] > 1) | objects.crowd[pairs.thing]
    group = answers.group[pairs.answer]
    contested = np.isin(group, group[hard])
    return _rows(pairs, np.flatnonzero(~contested)), _rows(pairs, np.flatnonzero(contested))


def _first_come(pairs: Pairs, answers: int) -> Indices:
    """Object of each detection ``(thresholds, answers)`` or -1, where each touches at most one."""
    target = np.full((len(THRESHOLDS), answers), -1, dtype=np.int64)
    for place, threshold in enumerate(THRESHOLDS):
        reached = np.flatnonzero(pairs.overlap >= threshold)
        things, first = np.unique(pairs.thing[reached], return_index=True)
        target[place, pairs.answer[reached[first]]] = things
    return target


def _by_group(pairs: Pairs, answers: Answers) -> Iterator[Pairs]:
    """The pairs of one group after the other, each still by detection, then object."""
    group = answers.group[pairs.answer]
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    for rows in np.split(order, cuts) if len(order) else []:
        yield _rows(pairs, rows)


def _play(pairs: Pairs, unwanted: Flags, crowd: Flags) -> list[tuple[int, int, int]]:
    """Matches ``(threshold index, detection, object)`` of one group, by the rules above."""
    near: dict[int, list[tuple[bool, int, float]]] = {}
    columns = pairs.answer, unwanted[pairs.thing], pairs.thing, pairs.overlap
    for answer, *choice in zip(*(column.tolist() for column in columns), strict=True):
        near.setdefault(answer, []).append((choice[0], choice[1], choice[2]))
    many = set(np.unique(pairs.thing[crowd[pairs.thing]]).tolist())
    found = []
    for place, threshold in enumerate(THRESHOLDS.tolist()):
        taken: set[int] = set()
        for answer, choices in near.items():
            free = [
                choice
                for choice in choices
                if choice[2] >= threshold and (choice[1] in many or choice[1] not in taken)
            ]
            if free:
                # Wanted before unwanted, then the highest overlap, then the later object.
                _, thing, _ = max(free, key=lambda choice: (not choice[0], choice[2], choice[1]))
                taken.add(thing)
                found.append((place, answer, thing))
    return found
