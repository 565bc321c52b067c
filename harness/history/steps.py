"""Steps in a time line of medians, told from noise and from drift.

The medians' logarithms, in units of their noise, are cut into pieces of equal level by PELT
(Killick et al. 2012; the library `ruptures`), each cut costing `PENALTY` times log n. A straight
line is fitted too: where it explains the same with less, the machine drifts and there is no step.
A step needs three points on either side, so the last two points alone are never one.

How often noise alone makes a step is measured in ``tests/test_history.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.extras import require
from harness.stats import LEAST_RATIO

PENALTY = 4.0
LEAST_SIDE = 3
FLOOR_SIGMAS = 3.09 * math.sqrt(2)
"""The noise floor is what a difference of two medians exceeds once in 500 times."""


class Step(NamedTuple):
    """From point number ``at`` on the level is ``ratio`` times that before it."""

    at: int
    ratio: float


class Course(NamedTuple):
    """What a time line does. ``drift`` is last over first by the fitted line, 1 without drift."""

    kind: Literal["steady", "steps", "drift", "too short"]
    steps: tuple[Step, ...]
    drift: float


def course(medians: Sequence[float], floor: float | None) -> Course:
    """Judge medians in the order of time.

    Args:
        floor: the largest noise floor of the runs, a ratio less 1.

    Raises:
        MissingExtra: ruptures is not installed.
    """
    if len(medians) < 2 * LEAST_SIDE:
        return Course("too short", (), 1.0)
    logs = np.log(np.asarray(medians, np.float64))
    scaled = logs / _noise(logs, floor)
    ends = _cuts(scaled)
    price = PENALTY * math.log(len(scaled))
    stepped = sum(_scatter(part) for part in np.split(scaled, ends)) + price * len(ends)
    line = np.polyfit(np.arange(len(scaled)), scaled, 1)
    sloped = float(((scaled - np.polyval(line, np.arange(len(scaled)))) ** 2).sum()) + price
    flat = _scatter(scaled)
    if min(stepped, sloped) >= flat:
        return Course("steady", (), 1.0)
    if sloped < stepped:
        noise = _noise(logs, floor)
        return Course("drift", (), math.exp(float(line[0]) * noise * (len(logs) - 1)))
    levels = [float(np.median(part)) for part in np.split(logs, ends)]
    least = math.log1p(max(floor or 0.0, LEAST_RATIO))
    found = [
        Step(end, math.exp(after - before))
        for end, before, after in zip(ends, levels, levels[1:], strict=False)
        if abs(after - before) > least
    ]
    return Course("steps" if found else "steady", tuple(found), 1.0)


def _cuts(scaled: NDArray[np.float64]) -> list[int]:
    """Indices at which a new level begins."""
    ruptures = require("ruptures", extra="history")
    search: Any = ruptures.Pelt(model="l2", min_size=LEAST_SIDE, jump=1).fit(scaled)
    ends: list[int] = search.predict(pen=PENALTY * math.log(len(scaled)))
    return ends[:-1]


def _noise(logs: NDArray[np.float64], floor: float | None) -> float:
    """Scatter of one median: from the differences of neighbours, and from the floor at least."""
    apart = np.abs(np.diff(logs))
    robust = 1.4826 * float(np.median(apart)) / math.sqrt(2)
    return max(robust, math.log1p(max(floor or 0.0, LEAST_RATIO)) / FLOOR_SIGMAS)


def _scatter(part: NDArray[np.float64]) -> float:
    return float(((part - part.mean()) ** 2).sum()) if len(part) else 0.0
