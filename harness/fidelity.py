"""How faithful a compressed model is to its float parent, on images that need no ground truth.

What the parent shows (score ≥ `parity.SHOWN_SCORE`) is taken for the truth. The child's detections
are scored against it, and counted as `harness.parity` counts them on golden images: matched, lost,
new, moved, rescored. A child that finds exactly what its parent finds has a fidelity of 1, whether
the parent is right or wrong: fidelity says what compression changed, never whether that is good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import parity
from harness.accuracy import evaluate
from harness.interfaces import Detections, Truth
from harness.records import Measurement

FIGURES = {
    "accuracy.coco_map": "fidelity.coco_map",
    "accuracy.coco_map50": "fidelity.coco_map50",
}
"""The scores that are taken against the parent, and how they are then called."""
COUNTS = parity.DetectionChanges._fields
MOST_CHANGED = 12
"""Images named in the record, those that changed most."""


class Change(NamedTuple):
    """What became of one image, the ``place``-th. ``counts`` are `parity.DetectionChanges`."""

    place: int
    name: str
    counts: parity.DetectionChanges

    @property
    def total(self) -> int:
        """Everything that is not as before; a pair that moved and was rescored counts twice."""
        return sum(self.counts) - self.counts.matched


def pseudo_truth(parent: Detections) -> Truth:
    """The parent's shown detections as ground truth."""
    shown = parent.scores >= parity.SHOWN_SCORE
    none = np.zeros(int(shown.sum()), np.bool_)
    return Truth(parent.boxes[shown], parent.labels[shown], none, none)


def fidelity(
    names: Sequence[str],
    parent: Sequence[Detections],
    child: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    labels: Sequence[str],
) -> tuple[Measurement, ...]:
    """Everything that compression changed, image by image in the same order.

    Args:
        names: image ids.
        sizes: ``(height, width)`` of each image in pixels.
        labels: class names of both models, background first.

    Returns:
        The scores of `FIGURES` with interval and classes; ``fidelity.<count>`` for each of
        `COUNTS` with ``per_class``; ``fidelity.changed_images`` with the images that changed most.
    """
    rule = {"truth": f"detections of the float model with a score of {parity.SHOWN_SCORE} or more"}
    scored = evaluate([pseudo_truth(one) for one in parent], child, sizes, labels)
    found = [
        msgspec.structs.replace(
            item, metric=FIGURES[item.metric], conditions={**item.conditions, **rule}
        )
        for item in scored
        if item.metric in FIGURES
    ]
    table = per_class(parent, child, len(labels))
    counts = [
        Measurement(
            metric=f"fidelity.{name}",
            value=float(column.sum()),
            unit="1",
            conditions={
                "images": len(names),
                "per_class": {
                    label: int(count)
                    for label, count in zip(labels[1:], column[1:], strict=True)
                    if count
                },
                "shown_score": parity.SHOWN_SCORE,
                "still_iou": parity.STILL_IOU,
                "same_score": parity.SAME_SCORE,
            },
        )
        for name, column in zip(COUNTS, table.T, strict=True)
    ]
    return (*found, *counts, _changed(names, parent, child))


def changes(
    names: Sequence[str], parent: Sequence[Detections], child: Sequence[Detections]
) -> list[Change]:
    """Images in which anything changed, the most changed first; by name among equals."""
    every = [
        Change(place, name, parity.compare_detections([before], [after]))
        for place, (name, before, after) in enumerate(zip(names, parent, child, strict=True))
    ]
    return sorted((one for one in every if one.total), key=lambda one: (-one.total, one.name))


def per_class(
    parent: Sequence[Detections], child: Sequence[Detections], classes: int
) -> NDArray[np.int64]:
    """`COUNTS` by label, ``(classes, 5)``. Pairs are of one class, so the rows add up to all."""
    table = np.zeros((classes, len(COUNTS)), np.int64)
    for before, after in zip(parent, child, strict=True):
        for label in np.union1d(before.labels, after.labels).tolist():
            table[label] += parity.compare_detections(
                [_of_class(before, label)], [_of_class(after, label)]
            )
    return table


def _of_class(found: Detections, label: int) -> Detections:
    chosen = found.labels == label
    return Detections(*(column[chosen] for column in found))


def _changed(
    names: Sequence[str], parent: Sequence[Detections], child: Sequence[Detections]
) -> Measurement:
    found = changes(names, parent, child)
    most: list[dict[str, Any]] = [
        {"image": one.name, **one.counts._asdict()} for one in found[:MOST_CHANGED]
    ]
    return Measurement(
        metric="fidelity.changed_images",
        value=float(len(found)),
        unit="images",
        conditions={"images": len(names), "most_changed": most},
    )
