"""What each pair of rows says: a verdict on speed by METHOD's rule, a change of accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness import stats
from harness.comparison import rescoring
from harness.comparison.pairs import Pair, Paired
from harness.errors import DetbenchError
from harness.records import Measurement, RunRecord
from harness.report import scores, timings
from harness.report.join import Row
from harness.report.timings import END_TO_END, INFERENCE, Pace, Timings
from harness.rounds import interleaved
from harness.stats import Verdict

TIMED = {"inference": INFERENCE, "end to end": END_TO_END}
How = Literal["paired", "unpaired", "same detections", "no interval"]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians of both in ns and the verdict on them, None where a side was not timed.

    ``doubt`` says why the verdict, whatever it is, proves nothing: a smoke tier, a busy machine.
    """

    a: Pace | None
    b: Pace | None
    verdict: Verdict | None
    doubt: str = ""

    @property
    def outcome(self) -> str:
        if self.doubt or self.verdict is None:
            return "cannot tell"
        return self.verdict.outcome

    @property
    def words(self) -> str:
        """``1.20× slower``, ``indistinguishable`` or ``cannot tell: why``."""
        if self.doubt:
            return f"cannot tell: {self.doubt}"
        if self.verdict is None or self.verdict.ratio is None:
            return self.verdict.sentence if self.verdict else "cannot tell: not timed on both sides"
        if self.verdict.outcome == "indistinguishable":
            return self.verdict.outcome
        ratio = self.verdict.ratio if self.verdict.outcome == "slower" else 1 / self.verdict.ratio
        return f"{ratio:.2f}× {self.verdict.outcome}"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of both, 0..1, and ``b`` less ``a`` with its 95 % interval.

    ``how`` says where the interval comes from, ``why`` why it is no paired one.
    """

    a: float
    b: float
    change: float
    low: float | None
    high: float | None
    how: How
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """All that one pair says; ``scores`` by metric, such as ``accuracy.coco_map``."""

    pair: Pair
    speeds: Mapping[str, Speed]
    scores: Mapping[str, Score]


class Comparison:
    """Judges the pairs of two sides. Rows that share an accuracy cell are scored once."""

    def __init__(self, paired: Paired) -> None:
        self.paired = paired
        self.timings = Timings()
        self._changes: dict[tuple[int, int], tuple[dict[str, Measurement], How, str]] = {}

    def deltas(self) -> list[Delta]:
        return [
            Delta(
                pair=pair,
                speeds={n: self.speed(pair, metric) for n, metric in TIMED.items()},
                scores=self._scores(pair),
            )
            for pair in self.paired.pairs
        ]

    def speed(self, pair: Pair, metric: str, scale: float = 1.0) -> Speed:
        """How the times of a pair compare; ``scale`` as in `timings.compare`."""
        verdict = timings.compare(pair.a, pair.b, self.floor(pair), metric=metric, scale=scale)
        paces = [self.timings.pace(row, metric) for row in (pair.a, pair.b)]
        doubt = self.doubt(pair) if verdict is not None else ""
        return Speed(a=paces[0], b=paces[1], verdict=verdict, doubt=doubt)

    def floor(self, pair: Pair) -> float | None:
        """The larger noise floor of the two runs; None where one was not measured."""
        floors = [self.paired.floor(row) for row in (pair.a, pair.b)]
        known = [floor for floor in floors if floor is not None]
        return max(known) if len(known) == len(floors) else None

    def doubt(self, pair: Pair) -> str:
        """Why times of this pair prove nothing, if so."""
        a, b = pair.a.latency, pair.b.latency
        folders = [self.paired.folders[row.run] for row in (pair.a, pair.b)]
        if a and b and folders[0] == folders[1] and not interleaved(a, b):
            return "they did not take turns: time them again under one name"
        for name, row in (("A", pair.a), ("B", pair.b)):
            if self.paired.tier(row) == "smoke":
                return f"{name} was timed with tier smoke, which is for tests"
            if row.latency is not None and row.latency.state == "tainted":
                return f"{name} is tainted ({row.latency.error or 'the machine was busy'})"
            if row.mixed_artifacts:
                return f"{name} has records of different artifacts under one name"
        return ""

    def _scores(self, pair: Pair) -> dict[str, Score]:
        first, second = pair.a.accuracy, pair.b.accuracy
        if first is None or second is None or first.cell.dataset != second.cell.dataset:
            return {}
        key = (id(first), id(second))
        if key not in self._changes:
            self._changes[key] = self._paired_changes(pair.a, pair.b, first, second)
        changes, how, why = self._changes[key]
        found = {}
        for metric in scores.METRICS:
            one, two = scores.score(first, metric), scores.score(second, metric)
            if one and two and one.images == two.images:
                found[metric] = _score(one, two, changes.get(f"{metric}_change"), how, why)
        return found

    def _paired_changes(
        self, a: Row, b: Row, first: RunRecord, second: RunRecord
    ) -> tuple[dict[str, Measurement], How, str]:
        """Paired changes by metric where the detections of both are there, else why not."""
        sides = []
        for row, record in ((a, first), (b, second)):
            found = rescoring.find(self.paired.folders[row.run], record)
            if isinstance(found, str):
                return {}, "unpaired", found
            sides.append(found)
        if a.artifact is None or b.artifact is None or a.artifact.labels != b.artifact.labels:
            return {}, "unpaired", "the classes of both are not known to be the same"
        if rescoring.same(*sides):
            return {}, "same detections", ""
        try:
            changes = rescoring.changes(sides[0], sides[1], a.artifact.labels)
        except DetbenchError as error:
            return {}, "unpaired", str(error)
        return {change.metric: change for change in changes}, "paired", ""


def _score(
    one: scores.Score, two: scores.Score, change: Measurement | None, how: How, why: str
) -> Score:
    difference = two.value - one.value
    if how == "same detections":
        low: float | None = 0.0
        high: float | None = 0.0
    elif change is not None and change.value is not None:
        limits = change.conditions.get("ci95")
        low, high = limits if limits else (None, None)
        difference = change.value
    else:
        low, high = scores.unpaired(one, two)
    if low is None:
        how, why = "no interval", why or "a score has no interval"
    return Score(a=one.value, b=two.value, change=difference, low=low, high=high, how=how, why=why)


def bounds(pace: Pace, floor: float | None) -> tuple[float, float]:
    """A median's interval in ns, widened by the noise floor of its run and by 1 % at least."""
    margin = 1 + max(floor or 0.0, stats.LEAST_RATIO)
    return pace.low / margin, pace.high * margin


def relative(score: Score) -> tuple[float, float, float] | None:
    """The change as a share of A's score with its interval; None without one."""
    if score.low is None or score.high is None or score.a <= 0 or not math.isfinite(score.a):
        return None
    return score.change / score.a, score.low / score.a, score.high / score.a
