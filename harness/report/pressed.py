"""What the tight loop hides: a camera's rate, the way from file to boxes, crowds, and heat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness import sustained
from harness.records import Measurement, RunRecord
from harness.report.chart_lines import Axes, Line, lines
from harness.report.chart_style import Look
from harness.report.chart_svg import Chart
from harness.report.charts import Group, is_float, short_names
from harness.report.figures import NS_PER_MS, milliseconds, significant
from harness.report.join import Entry, Joined, Row
from harness.report.measured import median
from harness.report.tables import Column, Table, Value, blank, text
from harness.report.tables import Line as TableLine
from harness.report.timings import END_TO_END, INFERENCE, Timings

CROWD = "latency.crowd_"
PACED = "latency.paced"
MOST_LINES = 8
WHO = (
    Column(key="machine", label="Machine", wide=True),
    Column(key="model", label="Model", wide=True),
    Column(key="export", label="Export"),
    Column(key="runner", label="Runner"),
    Column(key="threads", label="Threads", numeric=True),
)


def three_latencies(joined: Joined, timings: Timings) -> Table:
    """The same artifact in a tight loop, at a camera's rate, and from picture file to boxes."""
    rows = [row for row in joined.rows if row.latency and timings.pace(row)]
    table = Table(
        key="scenarios",
        caption=(
            "Medians: in a tight loop, once every period of a camera (--pace), and from the picture"
            " file to boxes. Small figures are 95 % intervals, or what the tight loop hid."
        ),
        columns=(
            *WHO,
            Column(key="tight", label="Tight loop", unit="ms", numeric=True),
            Column(key="paced", label="Paced", unit="ms", numeric=True),
            Column(key="decode", label="Decoding the file", unit="ms", numeric=True),
            Column(key="whole", label="File to boxes", unit="ms", numeric=True),
        ),
        lines=tuple(_three(row, row.latency, timings) for row in rows if row.latency),
        empty="No latency cell was measured.",
    )
    return table.without(joined.constant)


def _three(row: Row, record: RunRecord, timings: Timings) -> TableLine:
    return TableLine(
        values=(
            *_who(row.machine, row.model, row.export, row.runner, row.threads),
            median(timings, record, INFERENCE),
            _paced(record, timings),
            median(timings, record, "latency.decode_image"),
            median(timings, record, END_TO_END),
        )
    )


def _paced(record: RunRecord, timings: Timings) -> Value:
    found = record.measurement(PACED)
    tight, paced = timings.median(record, INFERENCE), timings.median(record, PACED)
    if found is None or paced is None or tight is None:
        return blank("not paced: run with --pace")
    rate = 1e9 / float(found.conditions["period_ns"])
    note = f"{paced.p50 / tight.p50:.2f}× the tight loop at {significant(rate)} a second"
    missed = int(found.conditions["missed"])
    note += f", {missed} images missed" if missed else ""
    return Value(text=milliseconds(paced.p50), sort=paced.p50 / NS_PER_MS, note=note)


def crowd(group: Group, looks: Mapping[str, Look], timings: Timings) -> Chart | None:
    """Decoding and suppression over the number of candidates, one line an export."""
    names = short_names(group.rows)
    drawn: dict[str, Line] = {}
    for row in group.rows:
        points = _crowd_points(row.latency)
        if points and row.pair not in drawn:
            drawn[row.pair] = Line(
                label=names[row.pair], series=row.runner, points=points, hollow=is_float(row)
            )
    chosen = list(drawn.values())[:MOST_LINES]
    if not chosen:
        return None
    worst = max(chosen, key=lambda line: line.points[-1][1])
    first, last = worst.points[0], worst.points[-1]
    return lines(
        chosen,
        looks,
        Axes(x="Candidates above the threshold", y="Decode + NMS (ms)", log=True),
        key=f"{group.key}-crowd",
        title=group.title,
        caption=(
            f"{worst.label}: {significant(first[1])} ms with {first[0]:,.0f} candidates,"
            f" {significant(last[1])} ms with {last[0]:,.0f}. The outputs are made up; the decoder"
            " and its limits are the artifact's."
        ),
    )


def _crowd_points(record: RunRecord | None) -> tuple[tuple[float, float], ...]:
    found = []
    for item in record.measurements if record else ():
        if item.metric.startswith(CROWD) and item.value is not None:
            found.append((float(item.conditions["candidates"]), item.value / NS_PER_MS))
    return tuple(sorted(found))


def long_runs(joined: Joined) -> list[Entry]:
    """Entries of sustained runs that hold samples."""
    return [e for e in joined.entries if e.cell.measure == "sustain" and e.measured and _run(e)]


def heat(entries: Sequence[Entry], looks: Mapping[str, Look], title: str, key: str) -> Chart | None:
    """Latency over time, one line a sustained run."""
    drawn = []
    for entry in entries[:MOST_LINES]:
        samples, at = _samples(entry)
        points = tuple((s, ns / NS_PER_MS) for s, ns in sustained.windows(samples, at))
        drawn.append(Line(label=entry.export, series=entry.runner, points=points))
    if not drawn:
        return None
    order = (_ranking(entries, 0), _ranking(entries, 1))
    caption = "Each point is the median of a sixtieth of the run."
    if order[0] != order[1]:
        caption += (
            f" The order changed: first {', '.join(order[0])}; at the end {', '.join(order[1])}."
        )
    elif len(order[0]) > 1:
        caption += " The order of the exports is the same at the end as at the start."
    busy = [e.export for e in entries if e.record and e.record.state == "tainted"]
    if busy:
        caption += f" Tainted, so a busy machine may have slowed it: {', '.join(busy)}."
    return lines(
        drawn,
        looks,
        Axes(x="Time (s)", y="Inference latency (ms)"),
        key=key,
        title=title,
        caption=caption,
    )


def conditions(
    entries: Sequence[Entry], looks: Mapping[str, Look], title: str, key: str
) -> list[Chart]:
    """Clock and temperature over the time of the same runs, where the machine tells them."""
    charts = []
    for name, label in (("mhz", "Clock (MHz)"), ("celsius", "Temperature (°C)")):
        drawn = []
        for entry in entries[:MOST_LINES]:
            seen = entry.record.measurement(f"sustain.{name}") if entry.record else None
            if seen is not None:
                at = [ns / 1e9 for ns in seen.conditions["at_ns"]]
                points = tuple(zip(at, seen.samples, strict=True))
                drawn.append(Line(label=entry.export, series=entry.runner, points=points))
        if drawn:
            charts.append(
                lines(
                    drawn,
                    looks,
                    Axes(x="Time (s)", y=label),
                    key=f"{key}-{name}",
                    title=f"{title}: {label.partition(' (')[0].lower()}",
                    caption="Looked at once a second, between calls.",
                )
            )
    return charts


def heat_table(joined: Joined) -> Table:
    """What became of each sustained run."""
    entries = long_runs(joined)
    ranks = (_ranking(entries, 0), _ranking(entries, 1))
    table = Table(
        key="sustained",
        caption=(
            "The same call for minutes. First and last are medians of a tenth of the run; it"
            f" throttled where it got {100 * (sustained.SLOWED - 1):.0f} % slower and stayed so."
        ),
        columns=(
            *WHO,
            Column(key="seconds", label="Lasted", unit="s", numeric=True),
            Column(key="first", label="First tenth", unit="ms", numeric=True),
            Column(key="last", label="Last tenth", unit="ms", numeric=True),
            Column(key="throttled", label="Throttled after", unit="s", numeric=True),
            Column(key="rank", label="Rank"),
        ),
        lines=tuple(_heat_line(entry, ranks) for entry in entries),
        empty="Nothing was run for long: use --sustain 10min.",
    )
    return table.without(joined.constant)


def _heat_line(entry: Entry, ranks: tuple[list[str], list[str]]) -> TableLine:
    samples, at = _samples(entry)
    first, last = sustained.first_and_last(samples)
    throttled = sustained.time_to_throttle_s(samples, at)
    tainted = ("tainted",) if entry.record and entry.record.state == "tainted" else ()
    places = [order.index(_label(entry)) + 1 for order in ranks]
    moved = places[0] != places[1]
    return TableLine(
        cells=(entry.cell_id,),
        values=(
            *_who(entry.machine, entry.model, entry.export, entry.runner, entry.cell.threads),
            Value(text=f"{at[-1] / 1e9:,.0f}", sort=at[-1] / 1e9),
            Value(text=milliseconds(first), sort=first / NS_PER_MS),
            Value(text=milliseconds(last), sort=last / NS_PER_MS, note=f"{last / first:.2f}×"),
            blank("it did not")
            if throttled is None
            else Value(text=f"{throttled:,.0f}", sort=throttled, marks=tainted),
            Value(
                text=f"{places[0]} to {places[1]}" if moved else str(places[0]),
                sort=places[1],
                marks=("moved",) if moved else (),
            ),
        ),
    )


def _ranking(entries: Iterable[Entry], end: int) -> list[str]:
    """Runs by their median in the first (0) or last (1) tenth, fastest first."""
    speeds = {_label(e): sustained.first_and_last(_samples(e)[0])[end] for e in entries}
    return sorted(speeds, key=lambda label: speeds[label])


def _label(entry: Entry) -> str:
    return f"{entry.model} {entry.export} on {entry.runner}"


def _run(entry: Entry) -> Measurement | None:
    found = entry.record.measurement("sustain.inference") if entry.record else None
    return found if found and found.samples else None


def _samples(entry: Entry) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = _run(entry)
    at = entry.record.measurement("sustain.at") if entry.record else None
    return (found.samples if found else (), at.samples if at else ())


def _who(machine: str, model: str, export: str, runner: str, threads: int) -> tuple[Value, ...]:
    named = (text(machine), text(model), text(export), text(runner))
    return (*named, Value(text=str(threads), sort=threads))
