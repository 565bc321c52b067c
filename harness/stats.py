"""Statistics of raw timing samples, and the verdict on two of them.

Every figure here is a function of the raw samples (nanoseconds per call, in the order they were
taken) and is derived on reading, never stored in their place. Nothing here discards a sample.

A percentile is *licensed* when some order statistic with one sample to spare above it lies beyond
the true percentile with 99 % confidence: P(Binomial(n, 1 - p) <= 1) <= 0.01. That is the rule of
MLPerf's LoadGen for its smallest run, and gives its counts: 11, 24, 64, 130, 662 and 6636 samples
for p50, p75, p90, p95, p99 and p99.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness._distributions import binomial_cdf, student_quantile
from harness._mann_whitney import mann_whitney
from harness.errors import BadInput
from harness.records import Record
from harness.verdicts import Verdict, cannot_tell, decide

__all__ = [
    "Summary",
    "Verdict",
    "caching",
    "cannot_tell",
    "compare",
    "cov",
    "interval",
    "license_text",
    "mann_whitney",
    "needed",
    "noise_floor",
    "outliers",
    "percentile",
    "summarize",
]

CONFIDENCE = 0.99
OUTLIER_MADS = 14.83
UNSTABLE_COV = 0.025
SIGNIFICANT_P = 0.002
FLOOR_P = 0.001
"""Half of `SIGNIFICANT_P`: the floor is itself measured, beside cells that drift on after it."""
LEAST_RATIO = 0.01
CACHED_SHARE = 0.10
ROUNDS_FREEDOM = 4

Samples = Sequence[int] | Sequence[float] | NDArray[Any]


class Summary(Record, frozen=True, kw_only=True):
    """What one set of samples says. Times are in the samples' unit; None where not licensed.

    ``low`` and ``high`` are a 95 % interval of the median. ``advice`` holds a sentence for each
    thing a reader should know before trusting the row.
    """

    count: int
    minimum: float | None
    p50: float | None
    p75: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    low: float | None
    high: float | None
    cov: float | None
    unstable: bool
    outliers: int
    slow_first: bool
    advice: tuple[str, ...]


@lru_cache(maxsize=64)
def needed(p: float) -> int:
    """How many samples license percentile ``p``, 0 < p < 100.

    Raises:
        ValueError: ``p`` is out of range.
    """
    if not 0 < p < 100:
        raise ValueError(f"a percentile is above 0 and below 100, not {p}")
    tail = min(p, 100 - p) / 100
    low, high = 1, 2
    while not _licensed(high, tail):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _licensed(middle, tail) else (middle, high)
    return high


def percentile(samples: Samples, p: float) -> float | None:
    """Percentile ``p`` (linear between order statistics), or None with fewer than `needed`."""
    ordered = np.sort(_values(samples))
    if len(ordered) < needed(p):
        return None
    # as np.percentile, in a tenth of its time: reports ask for thousands
    low, part = divmod((len(ordered) - 1) * (p / 100), 1)
    below, above = ordered[int(low)], ordered[min(int(low) + 1, len(ordered) - 1)]
    return float(below + (above - below) * part)


def license_text(count: int, p: float) -> str | None:
    """What to show in place of an unlicensed percentile: ``needs 662, has 200``; else None."""
    return None if count >= needed(p) else f"needs {needed(p)}, has {count}"


def interval(
    samples: Samples, p: float = 50, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Distribution-free interval of percentile ``p`` between two order statistics.

    Covers at least ``confidence`` for independent samples; None where no two samples do.
    """
    values = np.sort(_values(samples))
    if len(values) < 2:
        return None
    cdf = binomial_cdf(len(values), p / 100)
    miss = (1 - confidence) / 2
    low = int(np.searchsorted(cdf, miss, side="right")) - 1
    high = int(np.searchsorted(cdf, 1 - miss, side="left"))
    if low < 0 or high >= len(values):
        return None
    return float(values[low]), float(values[high])


def cov(samples: Samples) -> float | None:
    """Coefficient of variation: standard deviation over mean; None below two samples."""
    values = _values(samples)
    if len(values) < 2 or values.mean() <= 0:
        return None
    return float(values.std(ddof=1) / values.mean())


def outliers(samples: Samples) -> NDArray[np.intp]:
    """Indices of samples with |x - median| > 14.83 MAD (hyperfine's rule), in order.

    Where more than half of the samples are equal the MAD is 0; one unit stands in for it.
    """
    values = _values(samples)
    if len(values) < 3:
        return np.empty(0, dtype=np.intp)
    away = np.abs(values - np.median(values))
    return np.flatnonzero(away > OUTLIER_MADS * max(float(np.median(away)), 1.0))


def summarize(samples: Samples) -> Summary:
    """All of the above at once."""
    values = _values(samples)
    count = len(values)
    far = outliers(values)
    spread = cov(values)
    slow_first = bool(len(far)) and far[0] == 0 and values[0] > float(np.median(values))
    unstable = spread is not None and spread > UNSTABLE_COV
    advice = []
    if slow_first:
        advice.append("the first sample is an outlier: warm up for longer")
    if len(far) > slow_first:
        advice.append(
            f"{len(far)} of {count} samples are outliers: close other programs and measure again"
        )
    if unstable:
        advice.append(f"unstable: the coefficient of variation is {spread:.1%}, above 2.5 %")
    middle = interval(values) if count >= needed(50) else None
    return Summary(
        count=count,
        minimum=float(values.min()) if count else None,
        p50=percentile(values, 50),
        p75=percentile(values, 75),
        p90=percentile(values, 90),
        p95=percentile(values, 95),
        p99=percentile(values, 99),
        p999=percentile(values, 99.9),
        low=middle[0] if middle else None,
        high=middle[1] if middle else None,
        cov=spread,
        unstable=unstable,
        outliers=len(far),
        slow_first=slow_first,
        advice=tuple(advice),
    )


def noise_floor(rounds: Sequence[Samples], per_cell: int | None = None) -> float | None:
    """The ratio, less 1, that an A/A comparison exceeds less than once in 500 times.

    A process that starts again lands on other addresses and beside other neighbours, so the
    medians of rounds differ by more than the samples within a round tell. Their spread, on the log
    scale, gives the floor by Student's t. Six rounds or more are worth having: the quantile alone
    is 12.9 with four and 5.4 with eight.

    Args:
        rounds: samples of the rounds of one cell, each from a process of its own, one after the
            other, as if every second one were of another cell.
        per_cell: how many rounds a compared cell has; None where it is half of these.

    Returns:
        None with fewer than four rounds, two a side: fewer say nothing about spread.
    """
    if len(rounds) < 4:
        return None
    logs = [math.log(_median(samples)) for samples in rounds]
    spread = float(np.std(logs, ddof=1))
    quantile = student_quantile(1 - FLOOR_P / 2, len(rounds) - 1)
    return math.expm1(quantile * spread * math.sqrt(2 / (per_cell or len(rounds) / 2)))


def compare(
    a: Samples,
    b: Samples,
    *,
    noise_floor: float | None,
    rounds: tuple[Sequence[int], Sequence[int]] | None = None,
    names: tuple[str, str] = ("A", "B"),
) -> Verdict:
    """Say whether ``b`` is faster or slower than ``a``.

    It is only when Mann–Whitney gives p < 0.002 and the ratio of medians lies beyond the noise
    floor and beyond 1 %. Samples of one process resemble each other, so with three rounds a side
    or more the ratio must also lie beyond what the spread of the cells' own round medians explains
    (Student's t at p = 0.002): a cell may be noisier than the one that gave the floor. Two rounds
    say too little for that, and the floor alone decides. The interval always counts the rounds.

    Args:
        a, b: samples in time per call.
        noise_floor: of the run, see `noise_floor`; None where it was not measured.
        rounds: number of samples in each round, of ``a`` and of ``b``.
        names: what to call them in the sentence.

    Raises:
        BadInput: a sample is not a positive number, or the rounds do not add up.
    """
    first, second = positive(a, names[0]), positive(b, names[1])
    for name, values in zip(names, (first, second), strict=True):
        missing = license_text(len(values), 50)
        if missing:
            return cannot_tell(f"the median of {name} {missing} samples")
    if noise_floor is None:
        return cannot_tell("the noise floor of the run was not measured")
    shift = math.log(np.median(second) / np.median(first))
    below, above = _shift_interval(first, second)
    bar = math.log1p(max(noise_floor, LEAST_RATIO))
    if rounds is not None:
        error = _round_error(first, second, rounds, names)
        if error is not None:
            standard_error, freedom = error
            if freedom >= ROUNDS_FREEDOM:
                bar = max(bar, student_quantile(1 - SIGNIFICANT_P / 2, freedom) * standard_error)
            widen = student_quantile(0.975, freedom) * standard_error
            below, above = min(below, shift - widen), max(above, shift + widen)
    p = mann_whitney(first, second)
    return decide((shift, below, above), bar=bar, p=p, significant=SIGNIFICANT_P, names=names)


def caching(fresh: Samples, repeated: Samples) -> str | None:
    """A warning where calls on an input just seen are over 10 % faster than on a fresh one.

    The samples come from `harness.timing.time_repeats`, which takes them in turns.
    """
    verdict = compare(fresh, repeated, noise_floor=CACHED_SHARE)
    if verdict.outcome != "faster" or verdict.ratio is None:
        return None
    return (
        f"answers for an input seen just before come {1 / verdict.ratio:.2f}× faster than for a"
        " fresh one: the runtime caches, so time it on fresh inputs only"
    )


def _licensed(count: int, tail: float) -> bool:
    """Whether P(Binomial(count, tail) <= 1) <= 1 - CONFIDENCE."""
    none_above = (1 - tail) ** count
    one_above = count * tail * (1 - tail) ** (count - 1)
    return none_above + one_above <= 1 - CONFIDENCE


def _values(samples: Samples) -> NDArray[np.float64]:
    return np.asarray(samples, dtype=np.float64).ravel()


def positive(samples: Samples, name: str) -> NDArray[np.float64]:
    """``samples`` as an array; raises BadInput naming ``name`` where one is no time."""
    values = _values(samples)
    if not (np.isfinite(values) & (values > 0)).all():
        raise BadInput(
            f"{name} has a sample that is not a positive time: the clock jumped or the record"
            " was edited, so measure it again"
        )
    return values


def _median(samples: Samples) -> float:
    values = positive(samples, "a round of the A/A run")
    if not len(values):
        raise BadInput("a round of the A/A run has no samples: measure it again")
    return float(np.median(values))


def _shift_interval(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of log(median b / median a), from the intervals of both medians.

    The half-widths add in quadrature on each side (the MOVER method, Zou & Donner 2008).
    """
    log_a, log_b = np.log(a), np.log(b)
    of_a, of_b = interval(log_a), interval(log_b)
    if of_a is None or of_b is None:
        raise ValueError("medians without an interval: check the license before")
    mid_a, mid_b = float(np.median(log_a)), float(np.median(log_b))
    below = math.hypot(mid_b - of_b[0], of_a[1] - mid_a)
    above = math.hypot(of_b[1] - mid_b, mid_a - of_a[0])
    return mid_b - mid_a - below, mid_b - mid_a + above


def _round_error(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    rounds: tuple[Sequence[int], Sequence[int]],
    names: tuple[str, str],
) -> tuple[float, int] | None:
    """Standard error of the log ratio from the spread of round medians, and its freedom."""
    logs = []
    for name, values, counts in zip(names, (a, b), rounds, strict=True):
        if sum(counts) != len(values) or min(counts, default=0) < 1:
            raise BadInput(
                f"the rounds of {name} hold {sum(counts)} samples, the row has {len(values)}:"
                " the record is damaged, measure it again"
            )
        parts = np.split(values, np.cumsum(counts)[:-1])
        logs.append(np.array([math.log(np.median(part)) for part in parts]))
    sizes = [len(part) for part in logs]
    freedom = sum(sizes) - 2
    if freedom < 1:
        return None
    scatter = sum(float(((part - part.mean()) ** 2).sum()) for part in logs)
    return math.sqrt(scatter / freedom * sum(1 / size for size in sizes)), freedom
