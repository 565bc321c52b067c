"""Join the rounds of one cell; derive the noise floor; tell whether two cells took turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import stats
from harness.records import Measurement, RunRecord
from harness.tasks import ChildResult

LEAST_FLOOR_ROUNDS = 6
"""Fewer rounds of the A/A control say too little about their spread."""


def merge(rounds: Sequence[Sequence[Measurement]]) -> tuple[Measurement, ...]:
    """One measurement per metric: samples one after the other, with the rounds' lengths kept.

    A metric with a single value a round (load, first inference, peak memory) keeps all values as
    samples; its own value is that of the first round.
    """
    if len(rounds) == 1:
        return tuple(rounds[0])
    by_metric: dict[str, list[Measurement]] = {}
    for measurements in rounds:
        for measurement in measurements:
            by_metric.setdefault(measurement.metric, []).append(measurement)
    return tuple(_joined(parts) for parts in by_metric.values())


def floor_rounds(rounds: int, *, trial: bool) -> int:
    """How often to time the A/A control for cells of ``rounds`` rounds: twice as often, or more."""
    return 2 * rounds if trial else max(2 * rounds, LEAST_FLOOR_ROUNDS)


def noise_floor(control: Sequence[ChildResult], rounds: int) -> float | None:
    """The ratio, less 1, that two measurements of the same cell rarely exceed.

    Args:
        control: rounds of one cell, each from a process of its own, one after the other.
        rounds: how many rounds each compared cell has.

    Returns:
        None where a round failed, or where there are too few.
    """
    samples = [
        measurement.samples
        for result in control
        for measurement in result.measurements
        if measurement.metric == "latency.inference"
    ]
    complete = len(samples) == len(control)
    return stats.noise_floor(samples, per_cell=rounds) if complete else None


def interleaved(a: RunRecord, b: RunRecord) -> bool:
    """Whether two cells took turns: each began before the other's last round.

    The noise floor holds for cells that did; a machine may have become another one between two
    that did not. Records without rounds (older ones) are taken to have.
    """
    if not a.rounds or not b.rounds:
        return True
    return (
        a.rounds[0].started_at <= b.rounds[-1].started_at
        and b.rounds[0].started_at <= a.rounds[-1].started_at
    )


def _joined(parts: Sequence[Measurement]) -> Measurement:
    samples: tuple[float, ...] = ()
    for part in parts:
        alone = (part.value,) if part.value is not None else ()
        samples += part.samples or alone
    conditions: dict[str, Any] = {**parts[0].conditions}
    conditions["rounds"] = [len(part.samples) or 1 for part in parts]
    first = parts[0]
    sampled = conditions.get("statistic") == "p50" and not conditions.get("too_short")
    value = stats.percentile(samples, 50) if sampled else first.value
    return Measurement(
        metric=first.metric,
        value=value,
        unit=first.unit,
        samples=samples,
        conditions=conditions,
    )
