"""Do two machines put the same exports in the same order? Rank correlations, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST = 3
"""Fewer exports in common say nothing about their order."""


class Agreement(NamedTuple):
    """How far two orders agree.

    Attributes:
        exports: how many they have in common.
        same, opposite: pairs of exports that both machines tell apart, in the same order or not.
        tied: pairs that at least one of them does not tell apart.
        tau: Kendall's tau-b, -1..1; None where nothing differs.
        rho: Spearman's rank correlation, likewise.
    """

    exports: int
    same: int
    opposite: int
    tied: int
    tau: float | None
    rho: float | None

    @property
    def words(self) -> str:
        """What it means for somebody who measured one machine alone."""
        decided = self.same + self.opposite
        if self.exports < LEAST:
            return f"{self.exports} exports in common: too few to say"
        if not decided:
            return "no two exports differ in speed on both machines"
        share = self.same / decided
        trust = (
            "measuring on one tells which is faster on the other"
            if share >= 0.95
            else "one is a rough guide to the other"
            if share >= 0.75
            else "measure on the machine itself"
        )
        order = f"{self.same} of {decided} pairs of exports are in the same order ({share:.0%})"
        return f"{order}: {trust}"


def agreement(
    a: Sequence[float], b: Sequence[float], floors: tuple[float, float] = (0.0, 0.0)
) -> Agreement:
    """Compare two sets of latencies of the same exports, in the same order.

    Args:
        floors: ratios, less 1, up to which two latencies count as equal, of ``a`` and of ``b``.

    Raises:
        ValueError: other lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} latencies are not of the same exports")
    first, second = (_signs(values, floor) for values, floor in zip((a, b), floors, strict=True))
    product = first * second
    upper = np.triu_indices(len(a), 1)
    same, opposite = int((product[upper] > 0).sum()), int((product[upper] < 0).sum())
    pairs = len(a) * (len(a) - 1) // 2
    decided = [int((signs[upper] != 0).sum()) for signs in (first, second)]
    tau = (same - opposite) / math.sqrt(decided[0] * decided[1]) if all(decided) else None
    return Agreement(len(a), same, opposite, pairs - same - opposite, tau, spearman(a, b))


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation with mid-ranks; None where one side does not vary."""
    if len(a) < 2:
        return None
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else None


def _signs(values: Sequence[float], floor: float) -> NDArray[np.int64]:
    """``(n, n)``: 1 where the row is slower than the column by more than ``floor``, -1, or 0."""
    logs = np.log(np.asarray(values, np.float64))
    apart = logs[:, None] - logs
    far = np.abs(apart) > math.log1p(floor)
    return np.where(far, np.sign(apart), 0).astype(np.int64)


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, group, size = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(size) - (size - 1) / 2)[group], np.float64)
