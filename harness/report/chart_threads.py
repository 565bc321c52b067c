"""Latency against threads, one line for each way to run a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.extras import require
from harness.report.chart_labels import spread
from harness.report.chart_style import (
    INK,
    MUTED,
    SMALL_PT,
    SURFACE,
    WIDTH_IN,
    Look,
    latency_axis,
    new_figure,
    text_size,
)
from harness.report.chart_svg import Chart, inline
from harness.report.figures import significant

HEIGHT_IN = 3.3
LABEL_GAP_PX = 14.5
MOST_LABEL_IN = 2.3


@dataclass(frozen=True, kw_only=True)
class Series:
    """One export on one runner: medians in ms with 95 % intervals, by number of threads."""

    label: str
    series: str
    hollow: bool
    ms: Mapping[int, tuple[float, float, float]]


def scaling(series: Sequence[Series], looks: Mapping[str, Look], *, key: str, title: str) -> Chart:
    """Draw lines (at least one, over at least two thread counts)."""
    counts = sorted({threads for line in series for threads in line.ms})
    figure, axes = new_figure(
        HEIGHT_IN, left=0.62, right=_label_room(series), top=0.14, bottom=0.52
    )
    everything = [value for line in series for value in line.ms.values()]
    latency_axis(axes.yaxis, min(v[1] for v in everything), max(v[2] for v in everything))
    axes.set_xlim(-0.25, len(counts) - 1 + 0.12)
    axes.set_xticks(range(len(counts)), [str(threads) for threads in counts])
    axes.set_xlabel("Threads")
    axes.set_ylabel("Inference latency, median (ms)")
    for line in series:
        _draw(axes, line, looks[line.series], counts)
    _label_ends(axes, series, counts)
    alt = "; ".join(_said(line) for line in series)
    return Chart(
        key=key,
        title=title,
        caption=_caption(series),
        alt=alt,
        svg=inline(figure, key=key, title=title, alt=alt),
    )


def _draw(axes: Any, line: Series, look: Look, counts: Sequence[int]) -> None:
    threads = sorted(line.ms)
    color = look.paint.stand_in
    places = [counts.index(t) for t in threads]
    axes.vlines(
        places,
        [line.ms[t][1] for t in threads],
        [line.ms[t][2] for t in threads],
        colors=color,
        linewidth=0.9,
        zorder=3,
    )
    axes.plot(
        places,
        [line.ms[t][0] for t in threads],
        color=color,
        marker=look.marker,
        markersize=5.5,
        markerfacecolor=SURFACE.stand_in if line.hollow else color,
        markeredgewidth=1.2,
        linewidth=1.3,
        linestyle=(0, (5, 2)) if line.hollow else "-",
        zorder=4,
    )


def _label_ends(axes: Any, series: Sequence[Series], counts: Sequence[int]) -> None:
    """Names at the right edge, moved apart, each tied to the end of its line."""
    area = axes.get_window_extent()
    transform, inverse = axes.transData, axes.transData.inverted()
    ends = []
    for line in series:
        last = max(line.ms)
        ends.append(transform.transform((counts.index(last), line.ms[last][0])))
    heights = spread([float(end[1]) for end in ends], LABEL_GAP_PX, area.y0, area.y1)
    for line, end, height in zip(series, ends, heights, strict=True):
        start = inverse.transform((end[0] + 5, end[1]))
        stop = inverse.transform((area.x1 + 6, height))
        axes.plot(
            [start[0], stop[0]],
            [start[1], stop[1]],
            color=MUTED.stand_in,
            linewidth=0.5,
            clip_on=False,
            zorder=1,
        )
        x, y = inverse.transform((area.x1 + 8, height))
        axes.text(
            x,
            y,
            line.label,
            fontsize=SMALL_PT,
            color=INK.stand_in,
            va="center_baseline",
            ha="left",
            clip_on=False,
        )


def _label_room(series: Sequence[Series]) -> float:
    """Inches at the right that the longest name needs, within reason."""
    figure = require("matplotlib.figure", extra="report").Figure()
    require("matplotlib.backends.backend_agg", extra="report").FigureCanvasAgg(figure)
    longest = max(text_size(figure, line.label, SMALL_PT)[0] for line in series) / figure.dpi
    return min(float(longest) + 0.2, MOST_LABEL_IN, WIDTH_IN / 2)


def _gain(line: Series) -> float:
    """How many times faster the last thread count is than the first."""
    return line.ms[min(line.ms)][0] / line.ms[max(line.ms)][0]


def _said(line: Series) -> str:
    values = ", ".join(f"{t}: {significant(line.ms[t][0])} ms" for t in sorted(line.ms))
    return f"{line.label} ({values})"


def _caption(series: Sequence[Series]) -> str:
    several = [line for line in series if len(line.ms) > 1]
    if not several:
        return "No way to run it was timed with more than one number of threads."
    best, worst = max(several, key=_gain), min(several, key=_gain)
    said = (
        f"{best.label} gains most from threads: {_gain(best):.2f}× from {min(best.ms)} to"
        f" {max(best.ms)}."
    )
    if worst is not best:
        said += f" {worst.label} gains least: {_gain(worst):.2f}×."
    return said
