"""Where the time goes inside the network: the top operators, and what is not convolution."""

from __future__ import annotations

from statistics import median

from harness.report.figures import NS_PER_MS, significant
from harness.report.join import Entry, Joined
from harness.report.tables import Column, Line, Table, Value, text

TOP = 5
PREFIX = "profile."
CONVOLUTION = "convolution"


def profile_table(joined: Joined) -> Table:
    """One line an export and runner: its top operators, and time by kind of work."""
    entries = [e for e in joined.entries if e.cell.measure == "profile" and e.measured]
    table = Table(
        key="operators",
        caption=(
            "From a run of its own, which a profiler slows down: shares say where the time goes,"
            " the sum is not the latency. Work that is not convolution is named: layout changes,"
            " quantize and dequantize, joins."
        ),
        columns=(
            Column(key="machine", label="Machine", wide=True),
            Column(key="model", label="Model", wide=True),
            Column(key="export", label="Export"),
            Column(key="runner", label="Runner"),
            Column(key="operators", label="Operators", numeric=True),
            Column(key="total", label="Sum of medians", unit="ms", numeric=True),
            Column(key="outside", label="Not convolution", unit="%", numeric=True),
            Column(key="top", label="Slowest operators", wide=True),
        ),
        lines=tuple(_line(entry) for entry in entries),
        empty="No export was profiled: use --profile.",
    )
    return table.without(joined.constant)


def _line(entry: Entry) -> Line:
    found = [
        (median(item.samples), item)
        for item in (entry.record.measurements if entry.record else ())
        if item.metric.startswith(PREFIX) and item.samples
    ]
    total = sum(ns for ns, _ in found) or 1.0
    work: dict[str, float] = {}
    for ns, item in found:
        kind = str(item.conditions["work"])
        work[kind] = work.get(kind, 0.0) + ns
    top = sorted(found, key=lambda pair: -pair[0])[:TOP]
    ranked = sorted(work.items(), key=lambda pair: -pair[1])
    others = [(what, ns) for what, ns in ranked if what != CONVOLUTION]
    outside = sum(ns for _, ns in others) / total
    return Line(
        cells=(entry.cell_id,),
        values=(
            text(entry.machine),
            text(entry.model),
            text(entry.export),
            text(entry.runner),
            Value(text=str(len(found)), sort=len(found)),
            Value(text=significant(total / NS_PER_MS), sort=total / NS_PER_MS),
            Value(
                text=f"{100 * outside:.0f}",
                sort=100 * outside,
                note=", ".join(f"{what} {100 * ns / total:.0f} %" for what, ns in others),
            ),
            text(
                ", ".join(
                    f"{item.conditions['kind']} {100 * ns / total:.0f} %" for ns, item in top
                ),
                note="; ".join(str(item.conditions["name"]) for _, item in top),
            ),
        ),
    )
