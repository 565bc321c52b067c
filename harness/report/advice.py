"""What a reader should know before trusting a row: outliers, unsteadiness, caches, taint."""

from __future__ import annotations

from collections.abc import Iterator

from harness import stats
from harness.errors import BadInput
from harness.records import RunRecord
from harness.report.join import Joined
from harness.report.tables import Column, Line, Table, Value, text
from harness.report.timings import Timings


def advice_table(joined: Joined, timings: Timings) -> Table:
    """One line for each latency cell about which there is something to say."""
    lines = []
    for entry in joined.entries:
        record = entry.measured
        if record is None or entry.cell.measure != "latency":
            continue
        said = list(sentences(record, timings))
        if said:
            lines.append(
                Line(
                    values=(
                        text(entry.machine),
                        text(entry.model),
                        text(entry.export),
                        text(entry.runner),
                        Value(text=str(entry.cell.threads), sort=entry.cell.threads),
                        text("; ".join(said)),
                    )
                )
            )
    table = Table(
        key="advice",
        caption="What to know before trusting a row, and what to do. No sample was left out.",
        columns=(
            Column(key="machine", label="Machine", wide=True),
            Column(key="model", label="Model", wide=True),
            Column(key="export", label="Export"),
            Column(key="runner", label="Runner"),
            Column(key="threads", label="Threads", numeric=True),
            Column(key="said", label="Advice", wide=True),
        ),
        lines=tuple(lines),
        empty="There is nothing to say against any row.",
    )
    return table.without(joined.constant)


def sentences(record: RunRecord, timings: Timings) -> Iterator[str]:
    """Everything there is to say about one latency cell."""
    summary = timings.summary(record)
    yield from summary.advice if summary else ()
    fresh, again = (record.measurement(f"latency.{name}") for name in ("fresh", "repeated"))
    if fresh is not None and again is not None:
        try:
            warning = stats.caching(fresh.samples, again.samples)
        except BadInput as error:
            warning = str(error)
        if warning:
            yield warning
    tainted = sum(one.tainted is not None for one in record.rounds)
    if tainted:
        yield f"{tainted} of {len(record.rounds)} rounds are tainted: {record.error}"
