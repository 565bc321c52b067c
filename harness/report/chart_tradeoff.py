"""Accuracy against latency, one point for each way to run a model, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.report.chart_labels import Label, place, whisker_box
from harness.report.chart_style import MUTED, SURFACE, Look, latency_axis, new_figure
from harness.report.chart_svg import Chart, inline
from harness.report.figures import count, percent, significant

HEIGHT_IN = 3.5
EDGE = 1.3
LEAST_RANGE = 1.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row: latency in ms and mAP in per cent, each as (middle, low, high)
    of its 95 % interval. ``series`` chooses colour and shape, ``hollow`` marks a float export.

    ``counts`` is False where the row must not set the front: it is tainted.
    """

    label: str
    series: str
    hollow: bool
    counts: bool
    ms: tuple[float, float, float]
    score: tuple[float, float, float]


def pareto(points: Sequence[Point]) -> list[Point]:
    """Points that no other point beats in latency and score at once, fastest first."""
    front: list[Point] = []
    for point in sorted((p for p in points if p.counts), key=lambda p: (p.ms[0], -p.score[0])):
        if not front or point.score[0] > front[-1].score[0]:
            front.append(point)
    return front


def tradeoff(
    points: Sequence[Point],
    looks: Mapping[str, Look],
    *,
    key: str,
    title: str,
    score_label: str,
    front_labels_only: bool = False,
) -> Chart:
    """Draw points (at least one). ``score_label`` names the score."""
    front = pareto(points)
    figure, axes = new_figure(HEIGHT_IN, left=0.62, right=0.12, top=0.14, bottom=0.52)
    _set_axes(axes, points, score_label)
    for name, members in _by_series(points).items():
        _draw(axes, members, looks[name])
    if len(front) > 1:
        axes.step(
            [p.ms[0] for p in front],
            [p.score[0] for p in front],
            where="post",
            color=MUTED.stand_in,
            linewidth=1.0,
            linestyle=(0, (4, 2)),
            zorder=2,
        )
    ranked = [*front, *(p for p in points if p not in front)]
    labels = [
        Label(text=p.label, x=p.ms[0], y=p.score[0], strong=p in front)
        for p in (front if front_labels_only else ranked)
    ]
    steps = [((a.ms[0], a.score[0]), (b.ms[0], a.score[0])) for a, b in pairwise(front)]
    steps += [((b.ms[0], a.score[0]), (b.ms[0], b.score[0])) for a, b in pairwise(front)]
    soft = [whisker_box(axes, start, end) for start, end in steps]
    soft += [whisker_box(axes, (p.ms[0], p.score[1]), (p.ms[0], p.score[2])) for p in points] + [
        whisker_box(axes, (p.ms[1], p.score[0]), (p.ms[2], p.score[0])) for p in points
    ]
    unnamed = [(p.ms[0], p.score[0]) for p in ranked[len(labels) :]]
    homeless = place(axes, labels, soft, unnamed)
    alt = "; ".join(
        f"{p.label}: {significant(p.ms[0])} ms, {percent(p.score[0] / 100)} %"
        f"{', on the front' if p in front else ''}"
        for p in ranked
    )
    return Chart(
        key=key,
        title=title,
        caption=_caption(points, front, homeless, len(unnamed)),
        alt=alt,
        svg=inline(figure, key=key, title=title, alt=alt),
    )


def _by_series(points: Sequence[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.series, []).append(point)
    return found


def _draw(axes: Any, points: Sequence[Point], look: Look) -> None:
    """Whiskers and markers of one series."""
    color = look.paint.stand_in
    whiskers = {"colors": color, "linewidth": 0.9, "alpha": 0.6, "zorder": 3}
    axes.vlines(
        [p.ms[0] for p in points],
        [p.score[1] for p in points],
        [p.score[2] for p in points],
        **whiskers,
    )
    axes.hlines(
        [p.score[0] for p in points],
        [p.ms[1] for p in points],
        [p.ms[2] for p in points],
        **whiskers,
    )
    for hollow in (False, True):
        chosen = [p for p in points if p.hollow is hollow]
        if chosen:
            axes.plot(
                [p.ms[0] for p in chosen],
                [p.score[0] for p in chosen],
                marker=look.marker,
                markersize=6.5,
                markerfacecolor=SURFACE.stand_in if hollow else color,
                markeredgecolor=color,
                markeredgewidth=EDGE,
                linestyle="none",
                zorder=5,
            )


def _set_axes(axes: Any, points: Sequence[Point], score_label: str) -> None:
    low = min(p.score[1] for p in points)
    high = max(p.score[2] for p in points)
    room = max(high - low, LEAST_RANGE)
    axes.set_ylim(max(0.0, low - 0.14 * room), high + 0.16 * room)
    latency_axis(
        axes.xaxis,
        min(p.ms[1] for p in points),
        max(p.ms[2] for p in points),
    )
    axes.set_xlabel("Inference latency, median (ms)")
    axes.set_ylabel(score_label)


def _caption(points: Sequence[Point], front: Sequence[Point], homeless: int, unnamed: int) -> str:
    if not front:
        return "Every row is tainted, so no Pareto front is drawn."
    said = (
        f"{len(front)} of {count(len(points), 'point')}"
        f" {'is' if len(front) == 1 else 'are'} on the Pareto front (bold, dashed line): no other"
        " is both faster and more accurate."
    )
    said += " Only these are named." if unnamed else ""
    if homeless:
        said += f" {count(homeless, 'point has', 'points have')} no room for a label."
    if not all(p.counts for p in points):
        said += " Tainted rows are drawn, but never set the front."
    return said
