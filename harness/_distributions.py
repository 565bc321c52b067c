"""The few probability distributions that `harness.stats` needs, with numpy and the stdlib only.

Devices run the core without scipy; the tests hold these functions against it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def binomial_cdf(count: int, chance: float) -> NDArray[np.float64]:
    """``(count + 1,)`` float64: P(successes <= k) for k = 0 … ``count``, 0 < ``chance`` < 1."""
    k = np.arange(count + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    log_choose = log_factorial[count] - log_factorial - log_factorial[::-1]
    cdf = np.cumsum(np.exp(log_choose + k * math.log(chance) + (count - k) * math.log1p(-chance)))
    cdf.flags.writeable = False
    return cdf


@lru_cache(maxsize=256)
def student_quantile(chance: float, freedom: int) -> float:
    """The t with P(T <= t) = ``chance`` for 0.5 <= ``chance`` < 1 and ``freedom`` >= 1.

    With t = sqrt(freedom) tan(angle) the density becomes cos(angle) ** (freedom - 1), which is
    smooth on a finite range: it is summed numerically there. Relative error below 1e-4.
    """
    angle = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    found = np.interp((chance - 0.5) * 2 * area[-1], area, angle)
    return math.sqrt(freedom) * math.tan(float(found))
