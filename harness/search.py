"""Search over recipe × exporter × runner: what is asked for, one trial, and the front.

A trial is made of ordinary cells that run in children like those of any run, so that a search that
is repeated finds its records and measures nothing twice. It stops early: whether it loses too much
is asked by the paired test of `harness.accuracy.stopping`, which scores no more images than the
answer takes, and what loses too much or is too large is not timed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness import recipes
from harness.errors import BadConfig
from harness.records import Record

STEP = 0.05
"""Between two values of a range whose ends are not whole."""
WORST = 1e6
"""A latency in ms, or a size in MB, that was not measured; the optimizer takes no infinity."""
FILE = "search.json"
"""All trials, in a run's folder."""
NOT_BEATEN = "not beaten"
_RANGE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)(?![\w.])")

Number = Callable[[str, float, float, float], float]
"""Draws a number: name, lowest, highest, step."""


class Limits(NamedTuple):
    """What a shippable export keeps to; None asks for nothing.

    ``drop`` (0..1) is of ``metric``, against the float network.
    """

    latency_ms: float | None = None
    size_mb: float | None = None
    drop: float | None = None
    metric: str = "accuracy.voc12_map"


class Space(NamedTuple):
    """A chain of recipes in which numbers may be ranges: ``prune:0.3..0.9+kmeans:4..8``."""

    text: str

    def draw(self, number: Number) -> str:
        """A chain with a number in place of each range."""
        count = 0

        def one(found: re.Match[str]) -> str:
            nonlocal count
            count += 1
            low, high = float(found[1]), float(found[2])
            whole = "." not in found[1] + found[2]
            value = number(f"{self.text} {count}", low, high, 1.0 if whole else STEP)
            return str(round(value)) if whole else f"{value:.4g}"

        return str(recipes.parse(_RANGE.sub(one, self.text)))


def space(text: str) -> Space:
    """Read and check a chain with ranges, at both ends of all of them.

    Raises:
        BadConfig, UnknownName: it cannot be followed there.
    """
    for ends in _RANGE.finditer(text):
        if float(ends[1]) >= float(ends[2]):
            raise BadConfig(f"range {ends[0]} in '{text}' is empty: write the smaller number first")
    found = Space(text)
    found.draw(lambda _, low, high, step: low)
    found.draw(lambda _, low, high, step: high)
    return found


class Trial(Record, frozen=True, kw_only=True):
    """One combination and what was measured of it; None where it was not, ``why`` says the reason.

    Attributes:
        map: mAP, 0..1, over the images that were scored.
        change: that less the float network's on the same images.
        fits: it keeps to all limits.
        cells: the records.
    """

    recipe: str
    exporter: str
    runner: str
    map: float | None = None
    change: float | None = None
    size_bytes: int | None = None
    latency_ns: float | None = None
    fits: bool = False
    why: str = ""
    cells: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.recipe} {self.exporter} {self.runner}"

    @property
    def values(self) -> tuple[float, float, float]:
        """mAP, latency in ms and size in MB as the optimizer sees them; the worst where unknown."""
        latency = WORST if self.latency_ns is None else self.latency_ns / 1e6
        size = WORST if self.size_bytes is None else self.size_bytes / 1e6
        return -1.0 if self.map is None else self.map, latency, size


def violations(trial: Trial, limits: Limits, answer: str | None) -> tuple[float, float, float]:
    """By how much a trial breaks each limit, as a part of it; 0 or less keeps to it.

    ``answer`` is the paired test's to whether it loses less than the limit.
    """
    latency = size = drop = -1.0
    if limits.latency_ms is not None and trial.latency_ns is not None:
        latency = trial.latency_ns / 1e6 / limits.latency_ms - 1
    if limits.size_mb is not None and trial.size_bytes is not None:
        size = trial.size_bytes / 1e6 / limits.size_mb - 1
    if limits.drop is not None and trial.change is not None and answer != "yes":
        drop = -trial.change / limits.drop - 1
        drop = max(drop, 0.01) if answer == "no" else drop
    return latency, size, drop


def beats(one: Trial, other: Trial) -> bool:
    """Whether ``one`` is as good in mAP, latency and size, and better in one of them."""
    mine, its = _costs(one), _costs(other)
    return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that fit and that no other beats, fastest first."""
    able = {trial.name: trial for trial in trials if trial.fits and trial.latency_ns is not None}
    best = [one for one in able.values() if not any(beats(two, one) for two in able.values())]
    return sorted(best, key=lambda trial: trial.latency_ns or 0.0)


def outcome(trial: Trial, best: Sequence[Trial]) -> str:
    """What became of a trial, in words, where ``best`` is the front."""
    if trial.name in {one.name for one in best}:
        return NOT_BEATEN
    if not trial.fits or trial.latency_ns is None:
        return trial.why or "not timed"
    return f"beaten by {next(one.name for one in best if beats(one, trial))}"


def _costs(trial: Trial) -> tuple[float, float, float]:
    score, latency, size = trial.values
    return -score, latency, size
