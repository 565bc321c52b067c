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

Indices = NDArray[np.int64]


def hard(boxes: NDArray[np.float64], labels: Indices, decoding: Decoding) -> Indices:
    """Indices of the boxes that survive, ascending, at most ``max_detections``.

    Args:
        boxes: ``(n, 4)`` corner form, best first.
        labels: ``(n,)`` class of each box; classes do not touch each other.
    """
    grouped = np.argsort(labels, kind="stable")  # each class's boxes in a row, best first
    owners = labels[grouped]
    ends = np.searchsorted(owners, owners, side="right").tolist()
    places = np.empty_like(grouped)
    places[grouped] = np.arange(len(grouped))
    reach, areas = _sides(boxes[grouped])
    threshold, epsilon = decoding.iou_threshold, decoding.iou_epsilon
    gone = np.zeros(len(boxes), dtype=np.bool_)
    flags = gone.data  # reads a single flag faster than the array does
    kept: list[int] = []
    room = dict.fromkeys(ends, decoding.max_per_class)
    limit = len(boxes) if decoding.max_detections is None else decoding.max_detections
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is no overlap: not above any
        for index, place in enumerate(places.tolist()):
            if flags[place]:
                continue
            kept.append(index)
            if len(kept) == limit:
                break
            end = ends[place]
            rest = slice(place + 1, end)
            left = room[end]
            if left is not None:
                room[end] = left - 1
                if left == 1:
                    gone[rest] = True
                    continue
            near = np.minimum(reach[:, rest], reach[:, place, None])
            sides = near[:2] + near[2:]
            np.maximum(sides, 0.0, out=sides)
            inter = sides[0] * sides[1]
            union = areas[rest] + areas[place]
            union -= inter
            if epsilon:
                union += epsilon
            inter /= union
            gone[rest] |= inter > threshold
    return np.array(kept, dtype=np.int64)


def soft(
    boxes: NDArray[np.float64],
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


class _Table(NamedTuple):
    """Boxes of each class in a row of its own, filled up with boxes that score -1.

    Attributes:
        place: ``(classes, n)`` places in the order given.
        score: ``(classes, n)`` float64.
        reach: ``(4, classes, n)``, see `_sides`.
        area: ``(classes, n)``.
    """

    place: Indices
    score: NDArray[np.float64]
    reach: NDArray[np.float64]
    area: NDArray[np.float64]

    def rows(self, chosen: NDArray[np.intp]) -> _Table:
        return _Table(
            self.place[chosen], self.score[chosen], self.reach[:, chosen], self.area[chosen]
        )


def _by_class(boxes: NDArray[np.float64], labels: Indices, scores: NDArray[np.float32]) -> _Table:
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


def _sides(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Far corners and negated near ones ``(4, n)``, and areas ``(n,)``.

    One minimum of two such columns gives both sides of an intersection.
    """
    reach = np.ascontiguousarray(np.concatenate([boxes[:, 2:], -boxes[:, :2]], axis=1).T)
    return reach, geometry.area(boxes)


def _overlap_with(table: _Table, best: NDArray[np.intp], epsilon: float) -> NDArray[np.float64]:
    """IoU of every box with its class's ``best``, ``(classes, n)``."""
    row = np.arange(len(best))
    near = np.minimum(table.reach, table.reach[:, row, best][..., None])
    sides = np.maximum(near[:2] + near[2:], 0.0)
    inter = sides[0] * sides[1]
    union = table.area + table.area[row, best][:, None] - inter + epsilon
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))
