"""Join the rounds of one cell; derive the noise floor; tell whether two cells took turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from harness import paired, stats
from harness.records import Measurement, RunRecord
from harness.tasks import ChildResult

INFERENCE = "latency.inference"
LEAST_FLOOR_ROUNDS = 8
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


class Floors(NamedTuple):
    """The ratios, less 1, that two measurements of one cell rarely exceed: timed one after the
    other, and by turns. None where they were not measured.
    """

    apart: float | None
    turns: float | None


def floors(control: Sequence[ChildResult], rounds: int) -> Floors:
    """Both floors from the A/A control.

    Args:
        control: rounds of one cell, each from a process of its own.
        rounds: how many rounds each compared cell has.
    """
    timed = [
        measurement
        for result in control
        for measurement in result.measurements
        if measurement.metric == INFERENCE
    ]
    if len(timed) != len(control):
        return Floors(None, None)
    by_turns = [turns for one in timed if (turns := by_turn(one))]
    at_once = all(result.round and result.round.together == len(control) for result in control)
    if at_once and len(by_turns) == len(control):
        each = [one[0] for one in by_turns]
        return Floors(paired.floor_apart(each, rounds), paired.floor(each, rounds))
    return Floors(stats.noise_floor([one.samples for one in timed], per_cell=rounds), None)


def by_turn(measurement: Measurement) -> list[paired.Round] | None:
    """The samples of all rounds, turn by turn; None where they were not taken by turns."""
    turns = measurement.conditions.get("turns")
    if not isinstance(turns, list | tuple) or not all(turns):
        return None
    return paired.split(measurement.samples, turns)


def took_turns(a: RunRecord, b: RunRecord) -> float | None:
    """The noise floor of two cells that took turns in every round; None where they did not."""
    if not a.rounds or len(a.rounds) != len(b.rounds):
        return None
    known = []
    for one, other in zip(a.rounds, b.rounds, strict=True):
        if one.together < 2 or one.started_at != other.started_at or one.turns_floor is None:
            return None
        known.append(one.turns_floor)
    return max(known)


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
    if "turns" in conditions:
        conditions["turns"] = [one for part in parts for one in part.conditions.get("turns", [[]])]
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
