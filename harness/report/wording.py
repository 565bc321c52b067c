"""How rows, losses and findings are said in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.fidelity import FIGURES
from harness.report import scores
from harness.report.figures import count, duration, megabytes, percent, signed_points
from harness.report.join import Row
from harness.report.timings import END_TO_END, INFERENCE, Pace, Timings

MENTIONED = 4


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One finding: ``lead`` names the question it answers."""

    lead: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure of the chosen row."""

    label: str
    value: str
    note: str = ""


def points(fraction: float) -> str:
    """``1 point``, ``0.5 points``."""
    value = 100 * fraction
    return f"{value:g} point{'' if value == 1 else 's'}"


def name(row: Row) -> str:
    """Export, runner and threads."""
    return f"{row.pair}, {count(row.threads, 'thread')}"


def takes(pace: Pace) -> str:
    """``p50 4.18 ms``."""
    return f"p50 {duration(pace.p50)}"


def names(rows: Sequence[Row]) -> str:
    """Rows by name, the first few."""
    return _listed([name(row) for row in rows])


def pairs(rows: Sequence[Row]) -> str:
    """Exports and runners, the first few."""
    return _listed([row.pair for row in rows])


def _listed(parts: list[str]) -> str:
    """Up to `MENTIONED` parts; ``;`` between them, for a part holds commas."""
    more = len(parts) - MENTIONED
    shown = parts if more <= 1 else [*parts[:MENTIONED], f"{more} others"]
    return "; ".join(shown)


def once(rows: Sequence[Row]) -> list[Row]:
    """The first row of each accuracy cell: rows that differ in threads alone are scored once."""
    found: dict[int, Row] = {}
    for row in rows:
        if row.accuracy:
            found.setdefault(id(row.accuracy), row)
    return list(found.values())


def loss(row: Row, reference: Row, metric: str) -> str:
    """``mAP 83.8 %, −0.4 points against the float reference (95 % interval …).``"""
    found = scores.score(row.accuracy, metric)
    change = scores.change(row, reference, metric)
    if found is None or change is None:
        return ""
    if scores.same_accuracy_cell(row, reference):
        return f"It is the float reference itself, mAP {percent(found.value)} %."
    interval = interval_of(change)
    return (
        f"mAP {percent(found.value)} %, {signed_points(change.difference)} points against the"
        f" float reference{f' ({interval})' if interval else ''}."
    )


def interval_of(change: scores.Change) -> str:
    """``95 % interval −0.9 to 0.0, paired``; empty where there is none."""
    if change.low is None or change.high is None:
        return ""
    how = "paired" if change.paired else "not paired"
    return f"95 % interval {signed_points(change.low)} to {signed_points(change.high)}, {how}"


def points_lost(row: Row, reference: Row, metric: str) -> str:
    """``−2.1 points``."""
    found = scores.change(row, reference, metric)
    return f"{signed_points(found.difference)} points" if found else "not scored"


def most_accurate(rows: Sequence[Row], reference: Row | None, metric: str) -> Sentence:
    """The best score, what shares it, and what no test tells from the float reference.

    Without ground truth, how close each export is to the float model.
    """
    lead = "Most accurate"
    value = {
        id(row): found.value
        for row in once(rows)
        if (found := scores.score(row.accuracy, metric)) is not None
    }
    scored = [row for row in once(rows) if id(row) in value]
    if not scored:
        return _closest(rows) or Sentence(lead=lead, text="No row was scored.")
    best = max(scored, key=lambda row: value[id(row)])
    others = [row for row in scored if row is not best]
    equal = [row for row in others if value[id(row)] == value[id(best)]]
    level = [row for row in others if row not in equal and _not_worse(row, reference, metric)]
    text = f"{best.pair}, mAP {percent(value[id(best)])} %"
    text += f"; exactly the same: {pairs(equal)}" if equal else ""
    text += f"; not proven worse than the float reference: {pairs(level)}" if level else ""
    return Sentence(lead=lead, text=f"{text}.")


def _closest(rows: Sequence[Row]) -> Sentence | None:
    """Exports by the mAP of their detections against the float model's, where that is all."""
    found = []
    for row in once(rows):
        measured = row.accuracy.measurement(FIGURES["accuracy.coco_map"]) if row.accuracy else None
        if measured is not None and measured.value is not None:
            found.append((measured.value, row.pair))
    if not found:
        return None
    said = [f"{pair} {percent(value)} %" for value, pair in sorted(found, key=lambda one: -one[0])]
    text = f"by mAP against its detections, as there is no ground truth: {_listed(said)}."
    return Sentence(lead="Closest to the float model", text=text)


def _not_worse(row: Row, reference: Row | None, metric: str) -> bool:
    if scores.same_accuracy_cell(row, reference):
        return True
    found = scores.change(row, reference, metric)
    return found is not None and found.high is not None and found.high >= 0


def smallest(
    rows: Sequence[Row], reference: Row | None, choice: Row | None, metric: str
) -> list[Sentence]:
    """The smallest scored export, and what it costs unless it is the chosen one."""
    sized = [row for row in once(rows) if row.size_bytes]
    if not sized:
        return []
    least = min(row.size_bytes or 0 for row in sized)
    found = [row for row in sized if row.size_bytes == least]
    text = f"{pairs(found)}, {megabytes(least)} MB"
    if reference is not None and reference.size_bytes and reference.size_bytes != least:
        text += f" ({reference.size_bytes / least:.1f}× smaller than the float reference)"
    if any(scores.same_accuracy_cell(row, choice) for row in found):
        return [Sentence(lead="Smallest", text=f"{text}: the recommended export.")]
    cost = loss(found[0], reference, metric) if len(found) == 1 and reference else ""
    return [Sentence(lead="Smallest", text=f"{text}. {cost}".strip())]


def tiles(choice: Row, reference: Row | None, metric: str, timings: Timings) -> tuple[Tile, ...]:
    """The figures of the chosen row, large."""
    found = []
    for timed, label in ((INFERENCE, "inference, p50"), (END_TO_END, "end to end, p50")):
        pace = timings.pace(choice, timed)
        if pace:
            note = f"95 % interval {duration(pace.low)} to {duration(pace.high)}"
            found.append(Tile(label=label, value=duration(pace.p50), note=note))
    score = scores.score(choice.accuracy, metric)
    if score:
        note = ""
        if score.low is not None and score.high is not None:
            note = f"95 % interval {percent(score.low)} to {percent(score.high)} %"
        label = scores.METRICS[metric]
        found.append(Tile(label=label, value=f"{percent(score.value)} %", note=note))
    change = scores.change(choice, reference, metric)
    if change and not scores.same_accuracy_cell(choice, reference):
        value = f"{signed_points(change.difference)} points"
        found.append(Tile(label="against float", value=value, note=interval_of(change)))
    if choice.size_bytes:
        found.append(Tile(label="model files", value=f"{megabytes(choice.size_bytes)} MB"))
    return tuple(found)
