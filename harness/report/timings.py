"""What the raw timing samples of the records say, each set of them summarised once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from harness import paired, stats
from harness.errors import BadInput
from harness.records import Measurement, RunRecord
from harness.report.join import Row
from harness.rounds import by_turn, interleaved, took_turns

INFERENCE = "latency.inference"
COMPARED = 50
"""Rows are compared by this percentile."""
STAGES = (
    ("latency.preprocess",),
    ("latency.inference_in_pipeline", INFERENCE),
    ("latency.postprocess",),
)
"""The parts of end to end, each by the first of its metrics that a record has."""
END_TO_END = "latency.end_to_end"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A licensed median in nanoseconds with its 95 % interval."""

    p50: float
    low: float
    high: float


class Timings:
    """What timing samples say, by record and metric, in nanoseconds; each computed once."""

    def __init__(self) -> None:
        self._summaries: dict[int, stats.Summary] = {}
        self._paces: dict[int, Pace | None] = {}
        self._kept: list[Measurement] = []  # keeps the ids that are the keys from being reused

    def summary(self, record: RunRecord | None, metric: str = INFERENCE) -> stats.Summary | None:
        """Everything about a metric's samples; None where the record has none."""
        found = _sampled(record, metric)
        if found is None:
            return None
        if id(found) not in self._summaries:
            self._summaries[id(found)] = stats.summarize(found.samples)
            self._kept.append(found)
        return self._summaries[id(found)]

    def median(self, record: RunRecord | None, metric: str) -> Pace | None:
        """The median of a metric's samples; None where there are none or too few."""
        found = _sampled(record, metric)
        if found is None:
            return None
        if id(found) not in self._paces:
            self._paces[id(found)] = _pace(found)
            self._kept.append(found)
        return self._paces[id(found)]

    def pace(self, row: Row, metric: str = INFERENCE) -> Pace | None:
        """The median of a row's latency cell."""
        return self.median(row.latency, metric)

    def stages(self, row: Row) -> tuple[Pace, ...]:
        """Medians of the parts of end to end; fewer than `STAGES` where one is not licensed."""
        found = []
        for metrics in STAGES:
            paces = (self.pace(row, metric) for metric in metrics)
            pace = next((pace for pace in paces if pace), None)
            found += [pace] if pace else []
        return tuple(found)

    def unstable(self, row: Row) -> bool:
        """Whether inference varies by more than `stats.UNSTABLE_COV`."""
        summary = self.summary(row.latency)
        return summary is not None and summary.unstable


def compare(
    a: Row, b: Row, noise_floor: float | None, *, metric: str = INFERENCE, scale: float = 1.0
) -> stats.Verdict | None:
    """How the time of ``b`` compares with that of ``a``; None where the samples forbid it.

    Args:
        scale: what the samples of ``a`` are multiplied by first. At 1.05 the verdict "slower" says
            that ``b`` is more than 5 % slower than ``a``.
    """
    first, second = (_sampled(row.latency, metric) for row in (a, b))
    if first is None or second is None or a.latency is None or b.latency is None:
        return None
    if a.run == b.run and not interleaved(a.latency, b.latency):
        return stats.cannot_tell("they did not take turns: time them again under one name")
    scaled = first.samples if scale == 1 else tuple(scale * sample for sample in first.samples)
    try:
        by_turns = _by_turns(a.latency, b.latency, msgspec.structs.replace(first, samples=scaled))
        if by_turns is not None:
            return by_turns
        return stats.compare(
            scaled, second.samples, noise_floor=noise_floor, rounds=_rounds(first, second)
        )
    except BadInput:  # a sample that is no time, or rounds that do not add up: no verdict
        return None


def _by_turns(a: RunRecord, b: RunRecord, first: Measurement) -> stats.Verdict | None:
    """The verdict on two cells that took turns in every round; None where they did not."""
    floor, second = took_turns(a, b), b.measurement(first.metric)
    mine, theirs = by_turn(first), by_turn(second) if second else None
    if floor is None or mine is None or theirs is None:
        return None
    return paired.compare(mine, theirs, noise_floor=floor)


def _sampled(record: RunRecord | None, metric: str) -> Measurement | None:
    found = record.measurement(metric) if record else None
    return found if found is not None and found.samples else None


def _pace(measurement: Measurement) -> Pace | None:
    p50 = stats.percentile(measurement.samples, COMPARED)
    if p50 is None:
        return None
    low, high = stats.interval(measurement.samples, COMPARED) or (p50, p50)
    return Pace(p50=p50, low=low, high=high)


def _rounds(a: Measurement, b: Measurement) -> tuple[Sequence[int], Sequence[int]] | None:
    first, second = a.conditions.get("rounds"), b.conditions.get("rounds")
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return first, second
    return None


def ratio(a: Pace, b: Pace) -> float:
    """How many times faster ``b`` is than ``a``, by their medians."""
    return a.p50 / b.p50
