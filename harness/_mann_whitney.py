"""The Mann–Whitney U test, with numpy and the stdlib only.

Devices run the core without scipy; the tests hold this against it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_UP_TO = 20


def mann_whitney(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of the Mann–Whitney U test.

    Exact up to 20 samples a side without ties, else the tie-corrected normal approximation with
    a continuity correction.

    Raises:
        ValueError: a side is empty.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n, m = len(first), len(second)
    if not n or not m:
        raise ValueError("the Mann–Whitney test needs samples on both sides")
    ranks, ties = _ranks(np.concatenate([first, second]))
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    u = max(u, n * m - u)
    if max(n, m) <= EXACT_UP_TO and ties.max() == 1:
        counts = _orders_by_u(n, m)
        return min(1.0, 2 * sum(counts[int(u) :]) / math.comb(n + m, n))
    total = n + m
    shrink = float((ties**3 - ties).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - shrink)
    if variance <= 0:
        return 1.0
    return min(1.0, 2 * _normal_tail((u - n * m / 2 - 0.5) / math.sqrt(variance)))


def _ranks(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mid-ranks from 1, and the size of every group of equal values."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    middle = last - (size - 1) / 2
    return middle[group], size.astype(np.float64)


@lru_cache(maxsize=256)
def _orders_by_u(few: int, many: int) -> tuple[int, ...]:
    """How many of the C(few + many, few) orders of two tie-free samples give U = 0, 1, 2, …

    The counts are the coefficients of the Gaussian binomial, built factor by factor
    (Mann & Whitney 1947).
    """
    length = few * many + 1
    counts = [1] + [0] * (length - 1)
    for i in range(1, few + 1):
        for u in range(length - 1, many + i - 1, -1):
            counts[u] -= counts[u - many - i]
        for u in range(i, length):
            counts[u] += counts[u - i]
    return tuple(counts)


def _normal_tail(z: float) -> float:
    """P(Z > z) of the standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))
