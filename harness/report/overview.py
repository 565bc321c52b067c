"""The table that the report is about: one row for each way to run each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.report import measured, scores
from harness.report.figures import count, listing
from harness.report.join import MEASURED, STATES, Joined, Row
from harness.report.tables import Column, Line, Table, Value, text
from harness.report.timings import END_TO_END, INFERENCE, Timings

RECOMMENDED = "recommended"
EMPTY = "No cell was measured. The reasons stand under “Not measured”."
COLUMNS = (
    Column(key="machine", label="Machine", wide=True),
    Column(key="model", label="Model", wide=True),
    Column(key="export", label="Export", pinned=True),
    Column(key="runner", label="Runner"),
    Column(key="threads", label="Threads", numeric=True),
    Column(key="marks", label="Marks"),
    Column(key="map", label="mAP", unit="%", numeric=True),
    Column(key="change", label="Against float", unit="points", numeric=True),
    Column(key="map50", label="mAP@.5", unit="%", numeric=True),
    Column(key="p50", label="Inference p50", unit="ms", numeric=True),
    Column(key="p90", label="Inference p90", unit="ms", numeric=True),
    Column(key="end", label="End to end p50", unit="ms", numeric=True),
    Column(key="memory", label="Peak memory", unit="MB", numeric=True),
    Column(key="size", label="Size", unit="MB", numeric=True),
)


def overview(
    joined: Joined,
    timings: Timings,
    metric: str,
    references: Mapping[str, Row | None],
    chosen: frozenset[str],
    smoke: frozenset[int],
) -> Table:
    """All rows.

    Args:
        references: each row's float reference, by the row's key.
        chosen: keys of the recommended rows.
        smoke: indices of the runs whose timings are no more than a test.
    """
    datasets = sorted({row.dataset for row in joined.rows})
    models = sorted({entry.model for entry in joined.entries})
    what = models[0] if len(models) == 1 else "each model"
    table = Table(
        key="results",
        caption=(
            f"{count(len(joined.rows), 'row')}: {what}, exported, run and threaded in one way."
            f" {scores.METRICS[metric]} on {listing(datasets or ['no data'])}."
            " Small figures are 95 % intervals. A dash has its reason beside it."
        ),
        columns=COLUMNS,
        lines=tuple(
            _line(row, timings, metric, references[row.key], _marks(row, timings, chosen, smoke))
            for row in joined.rows
        ),
        empty=EMPTY if joined.entries else "Nothing was planned, so nothing was measured.",
    )
    hidden = ["map50"] if metric != "accuracy.coco_map" else []
    return table.without([*joined.constant, *hidden])


def _line(row: Row, timings: Timings, metric: str, reference: Row | None, marks: Value) -> Line:
    accuracy, latency = row.accuracy, row.latency
    no_score = measured.absent(row.accuracy_entry)
    no_time = measured.absent(row.latency_entry)
    return Line(
        key=row.key,
        highlight=RECOMMENDED in marks.marks,
        values=(
            text(row.machine),
            text(row.model),
            text(row.export),
            text(row.runner),
            measured.threads(row),
            marks,
            measured.score(accuracy, metric) if accuracy else no_score,
            measured.change(row, reference, metric) if accuracy else no_score,
            _plain(measured.score(accuracy, "accuracy.coco_map50")) if accuracy else no_score,
            measured.median(timings, latency, INFERENCE) if latency else no_time,
            measured.tail(timings, latency, 90) if latency else no_time,
            _plain(measured.median(timings, latency, END_TO_END)) if latency else no_time,
            measured.peak_memory(latency) if latency else no_time,
            measured.size(latency or accuracy),
        ),
    )


def _plain(value: Value) -> Value:
    """A figure without its interval, which the details have; a reason stays."""
    return replace(value, note="") if value.text else value


def _marks(row: Row, timings: Timings, chosen: frozenset[str], smoke: frozenset[int]) -> Value:
    """What qualifies a row, in a word each; the details say why."""
    marks = [RECOMMENDED] if row.key in chosen else []
    if row.run in smoke and row.latency:
        marks.append("smoke")
    if timings.unstable(row):
        marks.append("unstable")
    explained = []
    for entry in (row.accuracy_entry, row.latency_entry):
        if entry and entry.state == "tainted":
            marks.append(f"tainted {entry.cell.measure}")
            explained.append(entry)
    if row.accuracy_entry and measured.leaked_images(row.accuracy):
        marks.append("calibration leak")
        explained.append(row.accuracy_entry)
    href = f"#{measured.anchor(explained[0])}" if explained else ""
    return Value(
        marks=tuple(marks), sort=" ".join(marks) or None, note="why" if href else "", href=href
    )


def accounting(joined: Joined) -> str:
    """Every planned cell, counted once: ``40 planned cells: 31 measured …``."""
    states: dict[str, int] = {}
    for entry in sorted(joined.entries, key=lambda entry: STATES.index(entry.state)):
        states[entry.state] = states.get(entry.state, 0) + 1
    measured_cells = sum(states.get(state, 0) for state in MEASURED)
    said = f"{count(len(joined.entries), 'planned cell')}: {measured_cells:,} measured"
    if states.get("tainted"):
        said += f" (of which {states['tainted']:,} tainted)"
    others = [f"{number:,} {state}" for state, number in states.items() if state not in MEASURED]
    said += f", {', '.join(others)}" if others else ""
    if joined.superseded:
        said += f". {count(joined.superseded, 'older record')} of the same cells left out"
    return f"{said}."
