"""Latency against threads, one line for each way to run a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.chart_ends import End, label_ends, label_room
from harness.report.chart_style import SURFACE, Look, latency_axis, new_figure
from harness.report.chart_svg import Chart, inline
from harness.report.figures import significant

HEIGHT_IN = 3.3


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
    room = label_room([line.label for line in series])
    figure, axes = new_figure(HEIGHT_IN, left=0.62, right=room, top=0.14, bottom=0.52)
    everything = [value for line in series for value in line.ms.values()]
    latency_axis(axes.yaxis, min(v[1] for v in everything), max(v[2] for v in everything))
    axes.set_xlim(-0.25, len(counts) - 1 + 0.12)
    axes.set_xticks(range(len(counts)), [str(threads) for threads in counts])
    axes.set_xlabel("Threads")
    axes.set_ylabel("Inference latency, median (ms)")
    for line in series:
        _draw(axes, line, looks[line.series], counts)
    ends = [(max(line.ms), line) for line in series]
    label_ends(axes, [End(line.label, counts.index(t), line.ms[t][0]) for t, line in ends])
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
    how = "gains most from threads" if _gain(best) > 1 else "loses least with threads"
    said = f"{best.label} {how}: {_gain(best):.2f}× from {min(best.ms)} to {max(best.ms)}."
    if worst is not best:
        said += f" {worst.label}: {_gain(worst):.2f}×."
    return said
