"""What more threads and larger batches buy, and which number of threads to ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.report.chart_lines import Axes, Line, lines
from harness.report.chart_style import Look
from harness.report.chart_svg import Chart
from harness.report.charts import Group, is_float, short_names
from harness.report.figures import NS_PER_MS, significant
from harness.report.join import Joined, Row
from harness.report.tables import Column, Table, Value, blank, text
from harness.report.tables import Line as TableLine
from harness.report.timings import Timings, compare

MOST_LINES = 12


@dataclass(frozen=True, kw_only=True)
class Knee:
    """The fewest threads that nothing faster is told apart from, against the fewest of all.

    ``efficiency`` is the speed-up over the growth in threads; 1 is perfect.
    """

    row: Row
    fewest: Row
    speed_up: float
    efficiency: float
    sentence: str


def knees(rows: Iterable[Row], timings: Timings, floors: Mapping[int, float | None]) -> list[Knee]:
    """One for each pair that was timed with more than one number of threads."""
    pairs: dict[tuple[int, str, str, str], list[Row]] = {}
    for row in rows:
        if timings.pace(row):
            pairs.setdefault((row.run, row.model, row.pair, row.dataset), []).append(row)
    return [
        _knee(sorted(members, key=lambda row: row.threads), timings, floors)
        for members in pairs.values()
        if len({row.threads for row in members}) > 1
    ]


def _knee(rows: Sequence[Row], timings: Timings, floors: Mapping[int, float | None]) -> Knee:
    fewest, best = rows[0], min(rows, key=lambda row: _p50(row, timings))
    chosen, why = best, "nothing with fewer threads is as fast"
    for row in rows:
        verdict = compare(row, best, floors.get(row.run)) if row is not best else None
        if row is best:
            break
        if verdict is None or verdict.outcome == "cannot tell":
            why = "whether fewer threads are as fast cannot be told"
        elif verdict.outcome == "indistinguishable":
            chosen, why = row, f"{best.threads} threads are not told apart from it"
            break
    speed_up = _p50(fewest, timings) / _p50(chosen, timings)
    return Knee(
        row=chosen,
        fewest=fewest,
        speed_up=speed_up,
        efficiency=speed_up * fewest.threads / chosen.threads,
        sentence=why,
    )


def threads_table(joined: Joined, timings: Timings, floors: Mapping[int, float | None]) -> Table:
    """The thread advisor: how many threads to ask for, and whether the runtime took them."""
    same: defaultdict[tuple[int, str, str], list[Row]] = defaultdict(list)
    for row in joined.rows:
        same[_swept(row)].append(row)
    table = Table(
        key="threads",
        caption=(
            "How many threads to ask for: the fewest that nothing faster is told apart from."
            " Efficiency is the speed-up over the growth in threads. Used are the threads that"
            " worked under load, counted in the process."
        ),
        columns=(
            Column(key="machine", label="Machine", wide=True),
            Column(key="model", label="Model", wide=True),
            Column(key="export", label="Export"),
            Column(key="runner", label="Runner"),
            Column(key="ask", label="Ask for", unit="threads", numeric=True),
            Column(key="speedup", label="Speed-up", unit="×", numeric=True),
            Column(key="efficiency", label="Efficiency", unit="%", numeric=True),
            Column(key="used", label="Used of asked"),
        ),
        lines=tuple(
            _advice(knee, same[_swept(knee.row)]) for knee in knees(joined.rows, timings, floors)
        ),
        empty="No export was timed with more than one number of threads.",
    )
    return table.without(joined.constant)


def _swept(row: Row) -> tuple[int, str, str]:
    """What rows have in common that differ by threads, batch or cores."""
    return row.run, row.model, row.pair


def _advice(knee: Knee, same: Sequence[Row]) -> TableLine:
    row = knee.row
    return TableLine(
        values=(
            text(row.machine),
            text(row.model),
            text(row.export),
            text(row.runner),
            Value(text=str(row.threads), sort=row.threads, note=knee.sentence),
            Value(
                text=f"{knee.speed_up:.2f}",
                sort=knee.speed_up,
                note=f"against {knee.fewest.threads}",
            ),
            Value(text=f"{100 * knee.efficiency:.0f}", sort=100 * knee.efficiency),
            _used(same),
        )
    )


def _used(rows: Sequence[Row]) -> Value:
    """``1 of 1, 2 of 2``; marked where a runtime used another number than it was asked for."""
    found, differs = [], False
    for row in rows:
        used = row.latency.measurement("threads.used") if row.latency else None
        if used is not None and used.value is not None:
            found.append(f"{used.value:g} of {row.threads}")
            differs |= used.value != row.threads
    if not found:
        return blank("not counted")
    return Value(text=", ".join(found), marks=("differs",) if differs else ())


def speed_ups(group: Group, looks: Mapping[str, Look], timings: Timings) -> Chart | None:
    """Speed-up over threads of one model's exports, with the ideal as a dotted line."""
    drawn = []
    for label, runner, hollow, rows in _pairs(group, timings):
        base = rows[0]
        points = tuple(
            (float(row.threads), _p50(base, timings) / _p50(row, timings)) for row in rows
        )
        if len(points) > 1:
            drawn.append(Line(label=label, series=runner, points=points, hollow=hollow))
    if not drawn:
        return None
    drawn = sorted(drawn, key=lambda line: -line.points[-1][1])[:MOST_LINES]
    best, worst = drawn[0], drawn[-1]
    most = best.points[-1]
    least = f", {worst.label} {worst.points[-1][1]:.2f}×" if worst is not best else ""
    return lines(
        drawn,
        looks,
        Axes(x="Threads", y="Speed-up (×)", ideal=True),
        key=f"{group.key}-speedup",
        title=group.title,
        caption=(
            f"{best.label} is {most[1]:.2f}× as fast with {most[0]:g} threads"
            f" ({100 * most[1] / most[0]:.0f} % parallel efficiency){least}. The dotted line is as"
            " many times faster as there are threads."
        ),
    )


def batches(group: Group, looks: Mapping[str, Look], timings: Timings) -> Chart | None:
    """Time of one image over the batch size, each export at its fastest number of threads."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    floats = set()
    for row in group.rows:
        pace = timings.pace(row)
        if pace and row.latency_entry:
            cell = row.latency_entry.cell
            per_image = pace.p50 / cell.batch / NS_PER_MS
            sizes = found.setdefault((row.export, cell.runner), {})
            sizes[cell.batch] = min(per_image, sizes.get(cell.batch, per_image))
            if is_float(row):
                floats.add((row.export, cell.runner))
    drawn = [
        Line(
            label=export,
            series=runner,
            points=tuple((float(size), ms) for size, ms in sorted(sizes.items())),
            hollow=(export, runner) in floats,
        )
        for (export, runner), sizes in found.items()
        if len(sizes) > 1
    ][:MOST_LINES]
    if not drawn:
        return None
    said = []
    for line in drawn:
        first, last = line.points[0], line.points[-1]
        said.append(f"{line.label}: {significant(first[1] / last[1])}× per image at {last[0]:g}")
    return lines(
        drawn,
        looks,
        Axes(x="Images in a call", y="Latency per image (ms)"),
        key=f"{group.key}-batch",
        title=group.title,
        caption="; ".join(said) + ".",
    )


def _pairs(group: Group, timings: Timings) -> Iterable[tuple[str, str, bool, list[Row]]]:
    """Label, runner, whether it is a float export, and rows by threads, of each pair."""
    names = short_names(group.rows)
    pairs: dict[str, list[Row]] = {}
    for row in group.rows:
        if timings.pace(row):
            pairs.setdefault(row.pair, []).append(row)
    for pair, rows in pairs.items():
        ordered = sorted(rows, key=lambda row: row.threads)
        yield names[pair], ordered[0].runner, is_float(ordered[0]), ordered


def _p50(row: Row, timings: Timings) -> float:
    pace = timings.pace(row)
    return pace.p50 if pace else float("inf")
