"""Non-maximum suppression within each class, hard and soft, all classes at once.

Boxes come best first. **Hard**: the best box stays and those that overlap it by more than the
threshold go, then the best of what is left. **Soft** (Bodla et al. 2017, arXiv:1704.04503): nothing
goes at once; the scores of the others fall, and a box goes when its score is no longer above the
score threshold:

- linear: times ``1 - IoU`` where the IoU is above the threshold;
- Gaussian: times ``exp(-IoU² / sigma)``, always.

IoU is intersection / (union + ``iou_epsilon``); two boxes without any area do not overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import boxes as geometry
from harness.records import Decoding

Boxes = NDArray[np.float64]
Indices = NDArray[np.int64]
AHEAD = 16
"""Boxes that are tried first, as a multiple of the survivors that are wanted."""
BLOCK = 64
"""Boxes of a crowded class that are compared with each other at once."""
FEW = 256
"""Boxes of a class up to which it is suppressed together with others."""


def hard(boxes: Boxes, labels: Indices, decoding: Decoding) -> Indices:
    """Indices of the boxes that survive, ascending, at most ``max_detections``.

    A box depends on better ones only, so where so many survivors are enough, the best boxes are
    tried first and the others only when those leave too few.

    Args:
        boxes: ``(n, 4)`` corner form, best first.
        labels: ``(n,)`` class of each box; classes do not touch each other.
    """
    limit = decoding.max_detections
    tried = len(boxes) if limit is None else AHEAD * limit
    while True:
        kept = _survivors(boxes[:tried], labels[:tried], decoding)
        if tried >= len(boxes) or (limit is not None and len(kept) >= limit):
            return kept[:limit]
        tried *= AHEAD


def soft(
    boxes: Boxes,
    labels: Indices,
    scores: NDArray[np.float32],
    decoding: Decoding,
) -> tuple[Indices, NDArray[np.float32]]:
    """Indices of the boxes that stay and their new scores, best new score first.

    At most ``max_per_class`` of each class and ``max_detections`` in all. Equal new scores stand in
    the order of ``boxes``.

    Args:
        boxes: ``(n, 4)`` corner form, best first.
        labels: ``(n,)`` class of each box; classes do not touch each other.
        scores: ``(n,)``, above the score threshold.
    """
    table = _by_class(boxes, labels, scores)
    limits = (decoding.max_per_class, decoding.max_detections, table.score.shape[1])
    least = float(np.float32(decoding.score_threshold))
    kept, lowered = [], []
    for _ in range(min(limit for limit in limits if limit is not None)):
        best = table.score.argmax(axis=1)
        top = table.score[np.arange(len(best)), best]
        if (top <= least).any():  # these classes have ended
            table = table.rows(np.flatnonzero(top > least))
            best, top = best[top > least], top[top > least]
        if not len(best):
            break
        row = np.arange(len(best))
        kept.append(table.place[row, best])
        lowered.append(top)
        overlap = _overlap_with(table, best, decoding.iou_epsilon)
        if decoding.suppression == "soft-gaussian":
            table.score[...] *= np.exp(-(overlap**2) / decoding.sigma)
        else:
            table.score[...] *= np.where(overlap > decoding.iou_threshold, 1 - overlap, 1.0)
        table.score[row, best] = -1.0  # taken
    index = np.concatenate([np.zeros(0, np.int64), *kept])
    new = np.concatenate([np.zeros(0), *lowered]).astype(np.float32)
    order = np.lexsort((index, -new))[: decoding.max_detections]
    return index[order], new[order]


def _survivors(boxes: Boxes, labels: Indices, decoding: Decoding) -> Indices:
    """Survivors of all classes, ascending: classes of few boxes together, the others one by one."""
    many = np.flatnonzero(np.bincount(labels) > FEW)
    few = np.flatnonzero(~np.isin(labels, many))
    kept = [np.zeros(0, np.int64)]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is no overlap: not above any
        if few.size:
            kept.append(few[_together(boxes[few], labels[few], decoding)])
        for label in many:
            own = np.flatnonzero(labels == label)
            kept.append(own[_of_class(*_sides(boxes[own]), decoding)])
    return np.sort(np.concatenate(kept))


def _together(boxes: Boxes, labels: Indices, decoding: Decoding) -> Indices:
    """Survivors of classes that fit into one table, a round for all of them at once.

    In each round the first box of every class that is still there stays, and clears those that
    overlap it too much.
    """
    table = _by_class(boxes, labels, np.ones(len(boxes), np.float32))
    alive, kept = table.score > 0, []
    for _ in range(decoding.max_per_class or alive.shape[1]):
        first = alive.argmax(axis=1)
        ahead = alive[np.arange(len(first)), first]
        if not ahead.all():  # the other classes have ended
            table, alive, first = table.rows(np.flatnonzero(ahead)), alive[ahead], first[ahead]
            if not len(first):
                break
        row, settled = np.arange(len(first)), first.min()
        table, alive, first = table.behind(settled), alive[:, settled:], first - settled
        kept.append(table.place[row, first])
        near = np.minimum(table.reach, table.reach[:, row, first][..., None])
        alive &= ~_clash(near, table.area, table.area[row, first][:, None], decoding)
        alive[row, first] = False
    return np.concatenate(kept)


def _clash(near: Boxes, areas: Boxes, others: Boxes, decoding: Decoding) -> NDArray[np.bool_]:
    """Whether pairs of boxes overlap too much.

    Args:
        near: ``(4, …)`` minimum of the two boxes' `_sides`.
        areas, others: of the two, ``(…)`` or what broadcasts to it.
    """
    sides = near[:2] + near[2:]
    np.maximum(sides, 0.0, out=sides)
    inter = sides[0] * sides[1]
    union = areas + others
    union -= inter
    union += decoding.iou_epsilon
    inter /= union
    return np.asarray(inter > decoding.iou_threshold)


def _of_class(reach: Boxes, areas: Boxes, decoding: Decoding) -> Indices:
    """Survivors of one class, ascending: a block is settled, then clears those behind it."""
    gone = np.zeros(len(areas), dtype=np.bool_)
    kept = np.zeros(0, np.int64)

    def clash(rows: Indices, columns: Indices | slice) -> NDArray[np.bool_]:
        near = np.minimum(reach[:, rows, None], reach[:, None, columns])
        return _clash(near, areas[columns], areas[rows, None], decoding)

    for start in range(0, len(areas), BLOCK):
        block = start + np.flatnonzero(~gone[start : start + BLOCK])
        new = block[_greedy(clash(block, block))]
        kept = np.concatenate([kept, new])
        if decoding.max_per_class is not None and len(kept) >= decoding.max_per_class:
            return kept[: decoding.max_per_class]
        rest = slice(start + BLOCK, None)
        if start + BLOCK < len(areas):
            gone[rest] |= clash(new, rest).any(axis=0)
    return kept


def _greedy(clash: NDArray[np.bool_]) -> list[int]:
    """The first of all, then the first that clashes with none of those chosen, and so on.

    A row of ``clash`` is one whole number, a bit for each box: Python joins those faster than numpy
    joins short arrays.
    """
    packed = np.packbits(clash, axis=1, bitorder="little")
    raw, width = packed.tobytes(), packed.shape[1]
    gone, chosen = 0, []
    for place in range(len(clash)):
        if not gone >> place & 1:
            chosen.append(place)
            gone |= int.from_bytes(raw[place * width : (place + 1) * width], "little")
    return chosen


class _Table(NamedTuple):
    """Boxes of each class in a row of its own, filled up with boxes that score -1.

    Attributes:
        place: ``(classes, n)`` places in the order given.
        score: ``(classes, n)`` float64.
        reach: ``(4, classes, n)``, see `_sides`.
        area: ``(classes, n)``.
    """

    place: Indices
    score: Boxes
    reach: Boxes
    area: Boxes

    def rows(self, chosen: NDArray[np.intp]) -> _Table:
        return _Table(
            self.place[chosen], self.score[chosen], self.reach[:, chosen], self.area[chosen]
        )

    def behind(self, column: int) -> _Table:
        """The columns from ``column`` on."""
        return _Table(
            self.place[:, column:],
            self.score[:, column:],
            self.reach[..., column:],
            self.area[:, column:],
        )


def _by_class(boxes: Boxes, labels: Indices, scores: NDArray[np.float32]) -> _Table:
    _, owner, counts = np.unique(labels, return_inverse=True, return_counts=True)
    grouped = np.argsort(owner, kind="stable")
    column = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(counts), max(1, counts.max(initial=0)))
    table = _Table(
        np.zeros(shape, np.int64), np.full(shape, -1.0), np.zeros((4, *shape)), np.zeros(shape)
    )
    cell = owner[grouped], column
    table.place[cell] = grouped
    table.score[cell] = scores[grouped]
    table.reach[:, *cell], table.area[cell] = _sides(boxes[grouped])
    return table


def _sides(boxes: Boxes) -> tuple[Boxes, Boxes]:
    """Far corners and negated near ones ``(4, n)``, and areas ``(n,)``.

    One minimum of two such columns gives both sides of an intersection.
    """
    reach = np.ascontiguousarray(np.concatenate([boxes[:, 2:], -boxes[:, :2]], axis=1).T)
    return reach, geometry.area(boxes)


def _overlap_with(table: _Table, best: NDArray[np.intp], epsilon: float) -> Boxes:
    """IoU of every box with its class's ``best``, ``(classes, n)``."""
    row = np.arange(len(best))
    near = np.minimum(table.reach, table.reach[:, row, best][..., None])
    sides = np.maximum(near[:2] + near[2:], 0.0)
    inter = sides[0] * sides[1]
    union = table.area + table.area[row, best][:, None] - inter + epsilon
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))
