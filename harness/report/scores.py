"""Accuracy figures of the records, and how far a row is from the float reference of its model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.records import Measurement, RunRecord
from harness.report.join import Row

METRICS = {
    "accuracy.coco_map": "mAP, COCO",
    "accuracy.coco_map50": "mAP@.5, COCO",
    "accuracy.voc12_map": "mAP, VOC2012",
    "accuracy.voc07_map": "mAP, VOC2007",
}
Standing = Literal["reference", "within", "beyond", "unclear", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A mean average precision, 0..1, with its 95 % interval where there is one."""

    value: float
    low: float | None
    high: float | None
    images: int | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """Score minus the reference's, 0..1, with a 95 % interval where both have one.

    ``paired`` tells an interval of a paired bootstrap from the wider one that two separate
    intervals give.
    """

    difference: float
    low: float | None
    high: float | None
    paired: bool


def score(record: RunRecord | None, metric: str) -> Score | None:
    """The score called ``metric``; None where the record has none."""
    found = record.measurement(metric) if record else None
    if found is None or found.value is None:
        return None
    low, high = _interval(found)
    images = found.conditions.get("images")
    return Score(
        value=found.value,
        low=low,
        high=high,
        images=images if isinstance(images, int) else None,
    )


def _interval(measurement: Measurement) -> tuple[float | None, float | None]:
    bounds = measurement.conditions.get("ci95")
    if isinstance(bounds, list | tuple) and len(bounds) == 2 and None not in bounds:
        return float(bounds[0]), float(bounds[1])
    return None, None


def primary_metric(rows: Iterable[Row]) -> str:
    """The score that rows are ranked by: the first of `METRICS` that any row has."""
    records = [row.accuracy for row in rows if row.accuracy]
    for metric in METRICS:
        if any(score(record, metric) for record in records):
            return metric
    return next(iter(METRICS))


def reference_of(rows: Sequence[Row], metric: str) -> Row | None:
    """The float row that the others of its model are held against.

    It is the first scored float32 row, in planned order, that was not itself compared with another.
    """
    scored = [
        row
        for row in rows
        if row.artifact
        and row.artifact.precision == "float32"
        and score(row.accuracy, metric) is not None
    ]
    own = [row for row in scored if _paired(row, metric) is None]
    return next(iter(own or scored), None)


def _paired(row: Row, metric: str) -> Measurement | None:
    """The paired comparison with the float parent, ``accuracy.<figure>_change``."""
    return row.accuracy.measurement(f"{metric}_change") if row.accuracy else None


def change(row: Row, reference: Row | None, metric: str) -> Change | None:
    """How a row's score differs from the reference's; None where one of them has no score."""
    mine = score(row.accuracy, metric)
    other = score(reference.accuracy, metric) if reference else None
    if mine is None or other is None:
        return None
    difference = mine.value - other.value
    paired = _paired(row, metric)
    if paired is not None and paired.value is not None:
        low, high = _interval(paired)
        return Change(difference=paired.value, low=low, high=high, paired=True)
    low, high = unpaired(other, mine)
    return Change(difference=difference, low=low, high=high, paired=False)


def unpaired(before: Score, after: Score) -> tuple[float | None, float | None]:
    """95 % interval of ``after`` less ``before`` from their own two, which add in quadrature."""
    if None in (before.low, before.high, after.low, after.high):
        return None, None
    difference = after.value - before.value
    below = math.hypot(after.value - (after.low or 0), (before.high or 0) - before.value)
    above = math.hypot((after.high or 0) - after.value, before.value - (before.low or 0))
    return difference - below, difference + above


def same_accuracy_cell(row: Row, other: Row | None) -> bool:
    """Whether two rows are scored by one and the same cell."""
    return other is not None and row.accuracy is not None and row.accuracy is other.accuracy


def standing(row: Row, reference: Row | None, metric: str, margin: float) -> Standing:
    """Whether a row is proven to lose at most ``margin``, proven to lose more, or neither."""
    if same_accuracy_cell(row, reference):
        return "reference"
    found = change(row, reference, metric)
    if found is None or found.low is None or found.high is None:
        return "unknown"
    if found.low >= -margin:
        return "within"
    return "beyond" if found.high < -margin else "unclear"
