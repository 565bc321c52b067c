"""Horizontal bars with their name above and their figure behind: sizes, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.chart_style import (
    GRID,
    INK,
    SERIES,
    SMALL_PT,
    SURFACE,
    new_figure,
    tick,
)
from harness.report.chart_svg import Chart, inline
from harness.report.figures import significant

ROW_IN = 0.44
BAR = 0.4
FRAME_IN = 0.62
HATCHES = ("----", "////", "", "\\\\\\\\")
STAGES = ("decoding the file", "pre-processing", "inference", "decode + NMS")
NETWORK = STAGES.index("inference")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of stacked ``parts``; ``mark`` is a line across it at another total, if any.

    ``hollow`` bars are those of float exports.
    """

    label: str
    parts: tuple[float, ...]
    hollow: bool = False
    mark: float | None = None


def sizes(bars: Sequence[Bar], *, key: str, title: str) -> Chart:
    """Sizes of model files in MB, at least one."""
    figure, axes = _frame(bars, "Model files (MB)")
    paint = SERIES[0]
    for place, bar in enumerate(bars):
        axes.barh(
            place,
            bar.parts[0],
            height=BAR,
            facecolor=SURFACE.stand_in if bar.hollow else paint.stand_in,
            edgecolor=paint.stand_in,
            linewidth=1.2,
            zorder=3,
        )
        _name(axes, place, bar.label)
        _figure(axes, place, bar.parts[0], f"{significant(bar.parts[0])} MB")
    alt = "; ".join(f"{bar.label}: {significant(bar.parts[0])} MB" for bar in bars)
    least, most = min(bars, key=lambda b: b.parts[0]), max(bars, key=lambda b: b.parts[0])
    times = most.parts[0] / least.parts[0] if least.parts[0] else 1.0
    caption = f"{least.label} is the smallest"
    caption += f", {times:.1f}× smaller than {most.label}." if times >= 1.05 else "."
    caption += " Outlined bars are float exports, filled ones int8."
    return Chart(
        key=key,
        title=title,
        caption=caption,
        alt=alt,
        svg=inline(figure, key=key, title=title, alt=alt),
    )


def split(bars: Sequence[Bar], *, key: str, title: str) -> Chart:
    """Medians of the `STAGES` in ms, stacked, with the end-to-end median as a line."""
    figure, axes = _frame(bars, "Latency, medians (ms)")
    paints = (SERIES[2], SERIES[4], SERIES[0], SERIES[3])
    for place, bar in enumerate(bars):
        start = 0.0
        for stage, part in enumerate(bar.parts):
            axes.barh(
                place,
                part,
                left=start,
                height=BAR,
                facecolor=paints[stage].stand_in if stage == NETWORK else SURFACE.stand_in,
                edgecolor=paints[stage].stand_in,
                hatch=HATCHES[stage],
                linewidth=0.9,
                zorder=3,
            )
            start += part
        if bar.mark is not None:
            axes.plot(
                [bar.mark, bar.mark],
                [place - 0.27, place + 0.27],
                color=INK.stand_in,
                linewidth=1.6,
                zorder=5,
            )
        _name(axes, place, bar.label)
        total = bar.mark if bar.mark is not None else start
        _figure(axes, place, max(start, total), f"{significant(total)} ms")
    alt = "; ".join(_stages_said(bar) for bar in bars)
    share = max(bars, key=_outside)
    caption = (
        "From left to right: decoding the picture file (level lines, where it was timed),"
        " pre-processing (rising stripes), inference (filled), decode + NMS (falling stripes);"
        " the line and the figure are the end-to-end median."
        f" The network takes {100 * (1 - _outside(share)):.0f} % of the sum in {share.label}"
        f" and {100 * (1 - _outside(min(bars, key=_outside))):.0f} % in"
        f" {min(bars, key=_outside).label}."
    )
    return Chart(
        key=key,
        title=title,
        caption=caption,
        alt=alt,
        svg=inline(figure, key=key, title=title, alt=alt),
    )


def _outside(bar: Bar) -> float:
    """Share of the stages' sum that is not inference."""
    total = sum(bar.parts)
    return 1 - bar.parts[NETWORK] / total if total else 0.0


def _stages_said(bar: Bar) -> str:
    parts = zip(STAGES, bar.parts, strict=True)
    return f"{bar.label}: " + ", ".join(
        f"{stage} {significant(ms)} ms" for stage, ms in parts if ms
    )


def _frame(bars: Sequence[Bar], label: str) -> tuple[Any, Any]:
    height = FRAME_IN + ROW_IN * len(bars)
    figure, axes = new_figure(height, left=0.12, right=0.2, top=0.1, bottom=0.52)
    longest = max(max(sum(bar.parts), bar.mark or 0.0) for bar in bars)
    axes.set_xlim(0, (longest or 1.0) * 1.18)
    axes.set_ylim(len(bars) - 0.55, -0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=GRID.stand_in, linewidth=1.0, zorder=2)
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))
    axes.set_xlabel(label)
    return figure, axes


def _name(axes: Any, place: int, label: str) -> None:
    axes.annotate(
        label,
        (0, place - BAR / 2),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=SMALL_PT,
        color=INK.stand_in,
        va="bottom",
        zorder=6,
    )


def _figure(axes: Any, place: int, end: float, said: str) -> None:
    axes.annotate(
        said,
        (end, place),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=SMALL_PT,
        color=INK.stand_in,
        va="center",
        zorder=6,
    )
