"""What a run prints: its plan, and the table of its cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from harness.export_names import export_name, telling_options
from harness.fidelity import COUNTS
from harness.plan import Plan
from harness.progress import clock
from harness.records import Cell, Measurement, RunRecord
from harness.stats import percentile

HEADER = (
    "model",
    "exporter",
    "runner",
    "threads",
    "mAP %",
    "95 %",
    "mAP@.5 %",
    "p50 ms",
    "p90 ms",
    "MB",
)


def describe_plan(plan: Plan, expected_s: float, *, as_json: bool) -> str:
    """The cells of a plan and how long they will take."""
    if as_json:
        cells = [
            {"id": cell.id, "cell": msgspec.to_builtins(cell.cell), "unsupported": cell.unsupported}
            for cell in plan.cells
        ]
        return json.dumps({"cells": cells, "estimate_s": round(expected_s)}, indent=1)
    telling = telling_options(planned.cell for planned in plan.cells)
    lines = [
        f"{c.cell.measure:<8}  {c.cell.model_name}"
        f"  {export_name(c.cell, telling[c.cell.exporter])}  {c.cell.runner}"
        f"  {c.cell.threads} thread(s){f'  unsupported: {c.unsupported}' if c.unsupported else ''}"
        for c in plan.cells
    ]
    lines += [f"left out: {line}" for line in plan.left_out]
    lines.append(f"{len(plan.cells)} cells, about {clock(expected_s)} on this machine")
    return "\n".join(lines)


def table(records: Sequence[RunRecord], *, as_json: bool) -> str:
    """One row a timed (or only scored) cell, and one line a cell that did not end as asked."""
    if as_json:
        return json.dumps([msgspec.to_builtins(record) for record in records], indent=1)
    others = [r for r in records if r.cell.measure != "latency"]
    scores = {_key(r): r for r in sorted(others, key=lambda r: r.cell.measure == "accuracy")}
    timed = [r for r in records if r.cell.measure == "latency" and r.state in ("ok", "tainted")]
    with_time = {_key(r) for r in timed}
    telling = telling_options(r.cell for r in records)
    rows = [HEADER, *(_row(r, scores.get(_key(r)), telling) for r in timed)]
    rows += [
        _row(None, r, telling)
        for k, r in scores.items()
        if k not in with_time and r.state in ("ok", "tainted")
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += [line for r in records if (line := _fidelity(r))]
    lines += [f"{r.state}: {r.cell_id}: {r.error}" for r in records if r.state != "ok"]
    done = sum(record.state == "ok" for record in records)
    return "\n".join([*lines, f"{done} of {len(records)} cells ended as asked"])


def _fidelity(record: RunRecord) -> str:
    """What compression changed, of a row that has no score because its data has no labels."""
    found = record.measurement("fidelity.coco_map")
    if found is None or record.measurement("accuracy.coco_map") is not None:
        return ""
    number = {name: _count(record, f"fidelity.{name}") for name in COUNTS}
    cell, changed = record.cell, _count(record, "fidelity.changed_images")
    return (
        f"fidelity of {cell.model_name} {cell.exporter} on {cell.runner}:"
        f" {_percent(found.value)} % mAP against the float model; {number['matched']} matched"
        f" ({number['moved']} moved, {number['rescored']} rescored), {number['lost']} lost,"
        f" {number['new']} new; {changed} of {found.conditions['images']} images changed"
    )


def _count(record: RunRecord, metric: str) -> int:
    found = record.measurement(metric)
    return int(found.value or 0) if found else 0


def _key(record: RunRecord) -> tuple[str, ...]:
    cell = record.cell
    options = str(sorted(cell.export_options.items()))
    return cell.model_name, cell.exporter, options, cell.runner, cell.target


def _row(
    timed: RunRecord | None, scored: RunRecord | None, telling: Mapping[str, set[str]]
) -> tuple[str, ...]:
    record = timed or scored
    assert record is not None
    score = scored.measurement("accuracy.coco_map") if scored else None
    half = scored.measurement("accuracy.coco_map50") if scored else None
    inference = timed.measurement("latency.inference") if timed else None
    samples = inference.samples if inference else ()
    size = record.artifact_size_bytes
    return (
        record.cell.model_name,
        export_name(record.cell, telling[record.cell.exporter]),
        record.cell.runner,
        _threads(record.cell) if timed else "",
        _percent(score.value if score else None),
        _interval(score),
        _percent(half.value if half else None),
        *(_milliseconds(percentile(samples, p) if samples else None) for p in (50, 90)),
        f"{size / 1e6:.2f}" if size else "",
    )


def _threads(cell: Cell) -> str:
    """The threads, and what else of the sweep sets rows apart where it is not the default."""
    words = [str(cell.threads)]
    if cell.batch != 1:
        words.append(f"batch {cell.batch}")
    if cell.target != "cpu":
        words.append(cell.target)
    return ", ".join(words)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.1f}"


def _interval(score: Measurement | None) -> str:
    limits = score.conditions.get("ci95") if score else None
    return "" if limits is None else "–".join(_percent(limit) for limit in limits)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.2f}"
