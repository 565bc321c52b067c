"""Wilcoxon's signed-rank test, with numpy and the stdlib only, as `harness._mann_whitney`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

EXACT_UP_TO = 25


def signed_rank(differences: ArrayLike) -> float:
    """Two-sided p-value that ``differences`` lie about 0; zeros are left out (Wilcoxon's way).

    Exact up to 25 differences without ties, else the tie-corrected normal approximation with a
    continuity correction.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    count = len(values)
    if not count:
        return 1.0
    _, group, size = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    ranks = (last - (size - 1) / 2)[group]
    total = count * (count + 1) / 2
    more = max(float(ranks[values > 0].sum()), float(ranks[values < 0].sum()))
    if count <= EXACT_UP_TO and size.max() == 1:
        tail: int = sum(_ways(count)[int(more) :])
        return min(1.0, 2 * tail / (1 << count))
    ties = float((size.astype(np.float64) ** 3 - size).sum())
    variance = float(count * (count + 1) * (2 * count + 1) / 24 - ties / 48)
    if variance <= 0:
        return 1.0
    z = (more - total / 2 - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2.0)))


def _ways(count: int) -> list[int]:
    """In how many of the 2^count sign patterns the positive ranks sum to 0, 1, 2, …"""
    ways = [1] + [0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return ways
