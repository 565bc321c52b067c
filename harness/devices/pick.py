"""Which rows keep an application's limits, which of those nothing beats, why others do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.comparison.deltas import bounds
from harness.report import measured, scores
from harness.report.data import RunData
from harness.report.figures import duration, megabytes, percent
from harness.report.join import Joined, Row, join
from harness.report.timings import Pace, Timings


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is asked. None asks nothing. ``stage`` is the metric that ``latency_ns`` limits."""

    stage: str
    latency_ns: float | None = None
    map_ratio: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One row of the device: its figures, and why it is refused (empty: it may ship)."""

    row: Row
    pace: Pace | None
    score: float | None
    size_bytes: int | None
    refused: tuple[str, ...]

    @property
    def label(self) -> str:
        threads = f"{self.row.threads} thread{'' if self.row.threads == 1 else 's'}"
        return f"{self.row.model} {self.row.pair}, {threads}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """``best`` are the rows that nothing beats in speed, score and size together, fastest first."""

    machine: str
    metric: str
    best: tuple[Candidate, ...]
    refused: tuple[Candidate, ...]


def pick(runs: Sequence[RunData], machine: str, limits: Limits) -> Choice:
    """Choose among the rows of ``machine``.

    Raises:
        ResultsError: a plan holds something that is not a cell.
    """
    here = [run for run in runs if run.machine_id == machine]
    joined = join(here)
    picker = _Picker(here, joined, limits)
    found = [picker.candidate(row) for row in joined.rows]
    fitting = [candidate for candidate in found if not candidate.refused]
    best, beaten = [], []
    for one in fitting:
        by = next((other for other in fitting if _beats(other, one)), None)
        if by is None:
            best.append(one)
        else:
            beaten.append(_refuse(one, f"{by.label} is no slower, no less accurate and no larger"))
    return Choice(
        machine=machine,
        metric=picker.metric,
        best=tuple(sorted(best, key=lambda c: c.pace.p50 if c.pace else 0.0)),
        refused=(*beaten, *(c for c in found if c.refused)),
    )


class _Picker:
    """Holds each row to the limits."""

    def __init__(self, runs: Sequence[RunData], joined: Joined, limits: Limits) -> None:
        self.runs, self.joined, self.limits = runs, joined, limits
        self.metric = scores.primary_metric(joined.rows)
        self.timings = Timings()

    def candidate(self, row: Row) -> Candidate:
        pace = self.timings.pace(row, self.limits.stage)
        score = scores.score(row.accuracy, self.metric)
        reasons = (
            *self._unfit(row, pace),
            *self._latency(row, pace),
            *self._accuracy(row),
            *self._sizes(row),
        )
        return Candidate(
            row=row,
            pace=pace,
            score=score.value if score else None,
            size_bytes=row.size_bytes,
            refused=reasons,
        )

    def _unfit(self, row: Row, pace: Pace | None) -> Iterable[str]:
        if pace is None:
            yield "no licensed median latency"
        if row.tainted:
            yield "measured on a busy or changed machine (tainted)"
        if str(self.runs[row.run].run.get("tier")) == "smoke":
            yield "timed with tier smoke, which is for tests"
        if row.mixed_artifacts:
            yield "its accuracy and its latency are of different artifacts"
        if measured.leaked_images(row.accuracy):
            yield "it was calibrated on images that it is scored on"

    def _latency(self, row: Row, pace: Pace | None) -> Iterable[str]:
        limit = self.limits.latency_ns
        if limit is None or pace is None:
            return
        low, high = bounds(pace, self.runs[row.run].run.get("noise_floor"))
        if low > limit:
            yield f"p50 {duration(pace.p50)} is above {duration(limit)}"
        elif high > limit:
            yield (
                f"p50 {duration(pace.p50)} is not proven below {duration(limit)}"
                f" ({duration(low)} to {duration(high)} with noise)"
            )

    def _accuracy(self, row: Row) -> Iterable[str]:
        ratio = self.limits.map_ratio
        if ratio is None:
            return
        mates = [
            r
            for r in self.joined.rows
            if (r.model, r.dataset, r.run) == (row.model, row.dataset, row.run)
        ]
        reference = scores.reference_of(mates, self.metric)
        base = scores.score(reference.accuracy, self.metric) if reference else None
        mine = scores.score(row.accuracy, self.metric)
        if base is None or mine is None or base.value <= 0:
            yield "not scored, or no float reference to hold its score to"
            return
        said = (
            f"mAP {percent(mine.value)} % is {mine.value / base.value:.3f} of the float reference's"
        )
        standing = scores.standing(row, reference, self.metric, (1 - ratio) * base.value)
        if standing == "beyond":
            yield f"{said}, below {ratio:g}"
        elif standing in ("unclear", "unknown"):
            yield f"{said}, not proven to be {ratio:g} or more: score more images"

    def _sizes(self, row: Row) -> Iterable[str]:
        limit = self.limits.size_bytes
        if limit is not None and (row.size_bytes is None or row.size_bytes > limit):
            size = f"{megabytes(row.size_bytes)} MB" if row.size_bytes else "of unknown size"
            yield f"its files are {size}, above {megabytes(limit)} MB"
        limit = self.limits.memory_bytes
        if limit is None:
            return
        memory = measured.peak_memory(row.latency) if row.latency else None
        if memory is None or not isinstance(memory.sort, float):
            yield "its memory was not measured"
        elif memory.sort * 1e6 > limit:
            yield f"it takes {memory.text} MB of memory, above {megabytes(limit)} MB"


def _beats(other: Candidate, one: Candidate) -> bool:
    """Whether ``other`` is at least as good in all that both have, and better in something."""
    if other is one or other.pace is None or one.pace is None:
        return False
    mine, its = (
        (c.pace.p50 if c.pace else 0.0, -(c.score or 0.0), c.size_bytes or 0) for c in (one, other)
    )
    return all(b <= a for a, b in zip(mine, its, strict=True)) and mine != its


def _refuse(candidate: Candidate, reason: str) -> Candidate:
    return Candidate(
        row=candidate.row,
        pace=candidate.pace,
        score=candidate.score,
        size_bytes=candidate.size_bytes,
        refused=(reason,),
    )
