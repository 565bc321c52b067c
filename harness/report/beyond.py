"""Sections that a report has where they were measured: scaling, crowds and sustained runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from harness.history.timeline import Line as TimeLine
from harness.report import history, pressed, roofline, scaling
from harness.report.chart_style import Look, drawing, looks
from harness.report.chart_svg import Chart
from harness.report.charts import MOST_CHARTS, Group, Section
from harness.report.join import Joined
from harness.report.timings import Timings

Draw = Callable[[Group, Mapping[str, Look], Timings], Chart | None]
PER_GROUP: tuple[tuple[str, str, str, Draw], ...] = (
    (
        "speedup",
        "Speed-up",
        "How many times faster an export is with more threads than with its fewest; which number"
        " to ask for stands in the table of threads. Dashed lines are float exports.",
        scaling.speed_ups,
    ),
    (
        "batch",
        "Latency against batch",
        "Time of one image where several are given in a call, each export at its fastest number of"
        " threads.",
        scaling.batches,
    ),
    (
        "crowd",
        "Decoding a crowd",
        "What decoding and suppression take where there is much to find: both axes are logarithmic."
        " The network's own time does not change.",
        pressed.crowd,
    ),
)
OVER_TIME = (
    "Rows that were measured again and again, records of earlier revisions included; tainted and"
    " smoke records are left out. A step holds on both sides and exceeds the noise floor (see"
    " detbench history)."
)
ROOFLINE = (
    "roofline",
    "Roofline",
    "How near each export comes to what the machine can do, at its fastest number of threads. The"
    " lines are the machine's own speed in float32, measured beside the cells: sloped where memory"
    " is the limit, flat where arithmetic is. An int8 export may lie above the flat line.",
)


def sections(
    groups: Sequence[Group],
    joined: Joined,
    timings: Timings,
    roofs: roofline.Roofs,
    past: Sequence[TimeLine] = (),
) -> tuple[Section, ...]:
    """The sections that have something to draw.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    found = []
    entries = pressed.long_runs(joined)
    series = {row.runner for group in groups for row in group.rows}
    # a row's runner may name its batch, a line over batches is drawn as the runner itself
    series |= {entry.cell.runner for entry in joined.entries}
    known = looks(series | {entry.runner for entry in entries} | {line.runner for line in past})

    def under_the_roof(group: Group, known: Mapping[str, Look], timings: Timings) -> Chart | None:
        return roofline.chart(group, known, timings, roofs)

    with drawing():
        for key, heading, intro, draw in (*PER_GROUP, (*ROOFLINE, under_the_roof)):
            drawn = (draw(group, known, timings) for group in groups)
            shown = tuple(islice((chart for chart in drawn if chart), MOST_CHARTS))
            if shown:
                found.append(Section(key=key, heading=heading, intro=intro, charts=shown))
        over_time = history.charts(past, known)[:MOST_CHARTS]
        if over_time:
            found.append(
                Section(
                    key="history", heading="Over time", intro=OVER_TIME, charts=tuple(over_time)
                )
            )
        charts = _sustained(joined, known)
        if charts:
            found.append(
                Section(
                    key="sustained",
                    heading="Running for long",
                    intro="A device that gets hot slows down, and another export may then be the"
                    " fastest. Each line is one export at its most threads.",
                    charts=tuple(charts[:MOST_CHARTS]),
                )
            )
    return tuple(found)


def _sustained(joined: Joined, known: Mapping[str, Look]) -> list[Chart]:
    entries = pressed.long_runs(joined)
    groups = dict.fromkeys((entry.machine, entry.model) for entry in entries)
    machines = {machine for machine, _ in groups}
    charts: list[Chart] = []
    for number, (machine, model) in enumerate(groups, start=1):
        members = [e for e in entries if (e.machine, e.model) == (machine, model)]
        title = f"{model}, {machine}" if len(machines) > 1 else model
        first = pressed.heat(members, known, title, f"s{number}-sustained")
        charts += [first] if first else []
        charts += pressed.conditions(members, known, title, f"s{number}")
    return charts
