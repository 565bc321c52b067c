"""Lines over a quantity: speed-up over threads, decoding over candidates, latency over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.chart_ends import End, label_ends, label_room
from harness.report.chart_style import MUTED, SURFACE, Look, new_figure, tick
from harness.report.chart_svg import Chart, inline
from harness.report.figures import significant

HEIGHT_IN = 3.0
MOST_MARKED = 16
"""Longer lines have no marker at each point."""
MOST_TICKS = 8


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line; ``series`` names its look, ``hollow`` lines are those of float exports."""

    label: str
    series: str
    points: tuple[tuple[float, float], ...]
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What the axes say. ``ideal`` draws the diagonal; the vertical axis begins at 0, but is
    logarithmic with ``ratios`` (equal changes look equal) and, as both are, with ``log``.
    """

    x: str
    y: str
    log: bool = False
    ratios: bool = False
    ideal: bool = False


def lines(
    drawn: Sequence[Line],
    looks: Mapping[str, Look],
    axes_of: Axes,
    *,
    key: str,
    title: str,
    caption: str,
) -> Chart:
    """Draw at least one line of at least one point."""
    room = label_room([line.label for line in drawn])
    figure, axes = new_figure(HEIGHT_IN, left=0.76, right=room, top=0.14, bottom=0.52)
    xs = sorted({x for line in drawn for x, _ in line.points})
    ys = [y for line in drawn for _, y in line.points]
    if axes_of.log:
        axes.set_xscale("log")
        axes.set_xlim(xs[0] / 1.2, xs[-1] * 1.1)
    else:
        span = xs[-1] - xs[0] or 1.0
        axes.set_xlim(xs[0] - 0.05 * span, xs[-1] + 0.03 * span)
        if len(xs) <= MOST_MARKED and all(x == int(x) for x in xs):
            axes.set_xticks(xs[:: math.ceil(len(xs) / MOST_TICKS)])
    if axes_of.log or axes_of.ratios:
        axes.set_yscale("log")
        axes.set_ylim(min(ys) / 1.3, max(ys) * 1.3)
        if axes_of.ratios:
            axes.set_yticks(steps_1_2_5(min(ys), max(ys)))
    else:
        highest = max([*ys, *([xs[-1]] if axes_of.ideal else [])])
        axes.set_ylim(0, highest * 1.1 or 1.0)
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: tick(value))
    axes.set_xlabel(axes_of.x)
    axes.set_ylabel(axes_of.y)
    if axes_of.ideal:
        axes.plot(xs, xs, color=MUTED.stand_in, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
    for line in drawn:
        look = looks[line.series]
        color = look.paint.stand_in
        axes.plot(
            [x for x, _ in line.points],
            [y for _, y in line.points],
            color=color,
            marker=look.marker if len(line.points) <= MOST_MARKED else None,
            markersize=5.5,
            markerfacecolor=SURFACE.stand_in if line.hollow else color,
            markeredgewidth=1.2,
            linewidth=1.3,
            linestyle=(0, (5, 2)) if line.hollow else "-",
            zorder=4,
        )
    label_ends(axes, [End(line.label, *line.points[-1]) for line in drawn])
    alt = "; ".join(_said(line) for line in drawn)
    svg = inline(figure, key=key, title=title, alt=alt)
    return Chart(key=key, title=title, caption=caption, alt=alt, svg=svg)


def steps_1_2_5(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 … between ``low`` and ``high``, both above 0; too few: the two ends."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [base * 10.0**decade for decade in decades for base in (1.0, 2.0, 5.0)]
    within = [step for step in steps if low <= step <= high]
    return within if len(within) > 1 else [low, high]


def _said(line: Line) -> str:
    shown = line.points if len(line.points) <= MOST_MARKED else (line.points[0], line.points[-1])
    return f"{line.label} ({', '.join(f'{tick(x)}: {significant(y)}' for x, y in shown)})"
