"""Join the rounds of one cell, and derive the noise floor from a cell measured twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import stats
from harness.records import Measurement
from harness.tasks import ChildResult


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


def noise_floor(first: Sequence[ChildResult], again: Sequence[ChildResult]) -> float | None:
    """The ratio, less 1, that two measurements of the same cell rarely exceed.

    The two are a control cell and its copy, timed in the same shuffled rounds. None where one of
    them failed, or where there are too few rounds.
    """
    rounds = [*_inference_rounds(first), *_inference_rounds(again)]
    complete = len(rounds) == len(first) + len(again)
    return stats.noise_floor(rounds) if complete else None


def _joined(parts: Sequence[Measurement]) -> Measurement:
    samples: tuple[float, ...] = ()
    for part in parts:
        alone = (part.value,) if part.value is not None else ()
        samples += part.samples or alone
    conditions: dict[str, Any] = {**parts[0].conditions}
    conditions["rounds"] = [len(part.samples) or 1 for part in parts]
    first = parts[0]
    sampled = conditions.get("statistic") == "p50"
    value = stats.percentile(samples, 50) if sampled else first.value
    return Measurement(
        metric=first.metric,
        value=value,
        unit=first.unit,
        samples=samples,
        conditions=conditions,
    )


def _inference_rounds(results: Sequence[ChildResult]) -> list[tuple[float, ...]]:
    return [
        measurement.samples
        for result in results
        for measurement in result.measurements
        if measurement.metric == "latency.inference"
    ]
