"""Cells that took turns: what they differ by, and by how much a cell differs from itself.

Cells that are timed by turns (`harness.turns`) meet the same machine some 30 ms apart.
Turn by turn, one is divided by the other: what slows both cancels, and a turn that only one of two
met a neighbour in is one odd ratio among many, which a median does not follow.

What is left between two processes of one cell is where they lie in memory and on the cores. The
noise floor holds that, measured on several processes of one cell that took turns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness._distributions import binomial_cdf, student_quantile
from harness._signed_rank import signed_rank
from harness.stats import (
    LEAST_RATIO,
    ROUNDS_FREEDOM,
    SIGNIFICANT_P,
    positive,
)
from harness.verdicts import Verdict, decide

Round = Sequence[Sequence[float] | NDArray[Any]]
"""The samples of one round, turn by turn."""
FLOOR_P = 0.0005
"""A quarter of `SIGNIFICANT_P`: the floor is itself measured, and neighbours may come after it."""
LEAST_PAIRS = 10
"""Pairs of turns below which p = 0.002 cannot be reached."""
LEAST_ROUNDS = 1 + ROUNDS_FREEDOM
"""From so many on, the scatter of rounds themselves also bounds what may be called a difference."""


def split(samples: Sequence[float], turns: Sequence[Sequence[int]]) -> list[Round] | None:
    """Samples of all rounds as rounds of turns; None where the numbers do not add up."""
    values = np.asarray(samples, dtype=np.float64)
    sizes = [size for one in turns for size in one]
    if sum(sizes) != len(values) or min(sizes, default=0) < 1:
        return None
    parts = iter(np.split(values, np.cumsum(sizes)[:-1]))
    return [[next(parts) for _ in one] for one in turns]


def floor(control: Sequence[Round], per_cell: int) -> float | None:
    """The ratio, less 1, that two cells of one kind exceed less than once in 500 times.

    Args:
        control: what each process of one cell took, all of which took turns.
        per_cell: how many rounds a compared cell has.

    Returns:
        None with fewer than four processes, or fewer than `LEAST_PAIRS` turns of each.
    """
    count, length = len(control), min((len(one) for one in control), default=0)
    if count < 4 or length < LEAST_PAIRS:
        return None
    logs = np.array([_log_medians(one, length) for one in control])
    # pair by pair, as cells are compared: the sum over pairs is the sample variance of processes
    pairs = [float(np.median(a - b)) for a, b in itertools.combinations(logs, 2)]
    spread = math.sqrt(sum(pair**2 for pair in pairs) / (count * (count - 1)))
    return _floor(spread, count, per_cell)


def floor_apart(control: Sequence[Round], per_cell: int) -> float | None:
    """The same for cells that were timed one after the other.

    Each process is given a part of the time of its own, as if it had been alone in it.
    """
    count, length = len(control), min((len(one) for one in control), default=0)
    if count < 4 or length < count:
        return None
    bounds = np.linspace(0, length, count + 1).astype(int)
    parts = [
        np.concatenate([np.asarray(turn) for turn in one[start:end]])
        for one, start, end in zip(control, bounds, bounds[1:], strict=False)
    ]
    spread = float(np.std([math.log(np.median(part)) for part in parts], ddof=1))
    return _floor(spread, count, per_cell)


def compare(
    a: Sequence[Round],
    b: Sequence[Round],
    *,
    noise_floor: float,
    names: tuple[str, str] = ("A", "B"),
) -> Verdict | None:
    """Say whether ``b`` is faster or slower than ``a``, from rounds in which both took turns.

    It is only when Wilcoxon's signed-rank test on the ratios turn by turn gives p < 0.002, and the
    mean over rounds of their medians lies beyond the noise floor and beyond 1 %; with five rounds
    or more also beyond what the scatter of rounds explains (Student's t at p = 0.002). The
    interval counts the scatter of rounds; with fewer, half of the floor (whose quantile is more
    than twice that of 95 %) stands in for it.

    Args:
        noise_floor: of cells that take turns, see `floor`.

    Returns:
        None where there are too few turns.

    Raises:
        BadInput: a sample is not a positive number.
    """
    ratios = []
    for one, other in zip(a, b, strict=False):
        length = min(len(one), len(other))
        ratios.append(_log_medians(other, length, names[1]) - _log_medians(one, length, names[0]))
    every = np.concatenate(ratios) if ratios else np.empty(0)
    if len(every) < LEAST_PAIRS or min(map(len, ratios)) < 1:
        return None
    rounds = np.array([np.median(one) for one in ratios])
    shift = float(rounds.mean())
    bar = math.log1p(max(noise_floor, LEAST_RATIO))
    below, above = _interval(every, shift)
    widen = math.log1p(noise_floor) / 2
    if len(rounds) >= LEAST_ROUNDS:
        error, freedom = float(rounds.std(ddof=1)) / math.sqrt(len(rounds)), len(rounds) - 1
        bar = max(bar, student_quantile(1 - SIGNIFICANT_P / 2, freedom) * error)
        widen = student_quantile(0.975, freedom) * error
    below, above = min(below, shift - widen), max(above, shift + widen)
    p = signed_rank(every)
    return decide((shift, below, above), bar=bar, p=p, significant=SIGNIFICANT_P, names=names)


def _floor(spread: float, count: int, per_cell: int) -> float:
    """By Student's t from the standard deviation of ``count`` processes, on the log scale."""
    quantile = student_quantile(1 - FLOOR_P / 2, count - 1)
    return math.expm1(quantile * spread * math.sqrt(2 / per_cell))


def _log_medians(one: Round, length: int, name: str = "the A/A run") -> NDArray[np.float64]:
    return np.array([math.log(np.median(positive(turn, name))) for turn in one[:length]])


def _interval(ratios: NDArray[np.float64], shift: float) -> tuple[float, float]:
    """95 % interval around ``shift`` from order statistics of the ratios about their median."""
    ordered = np.sort(ratios)
    cdf = binomial_cdf(len(ordered), 0.5)
    low = max(int(np.searchsorted(cdf, 0.025, side="right")) - 1, 0)
    middle = float(np.median(ordered))
    return shift + ordered[low] - middle, shift + ordered[len(ordered) - 1 - low] - middle
