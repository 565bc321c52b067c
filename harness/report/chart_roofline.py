"""Operations per second against operations per byte, under what the machine allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.extras import require
from harness.machine_speed import Speed
from harness.report.chart_labels import Label, place
from harness.report.chart_style import (
    INK,
    MUTED,
    SMALL_PT,
    SURFACE,
    Look,
    new_figure,
    tick,
)
from harness.report.chart_svg import Chart, inline
from harness.report.figures import significant

HEIGHT_IN = 3.5
GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One way to run a model; ``share`` is of the roof at its number of threads."""

    label: str
    series: str
    hollow: bool
    intensity: float
    gflops: float
    share: float


def roofline(
    dots: Sequence[Dot],
    speeds: Sequence[Speed],
    looks: Mapping[str, Look],
    *,
    key: str,
    title: str,
) -> Chart:
    """Draw dots and roofs (at least one of each)."""
    figure, axes = new_figure(HEIGHT_IN, left=0.7, right=0.12, top=0.14, bottom=0.52)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ridges = [speed.flops / speed.bandwidth for speed in speeds]
    left = min([*(dot.intensity for dot in dots), *ridges]) / 3
    right = max([*(dot.intensity for dot in dots), *ridges]) * 4
    axes.set_xlim(left, right)
    heights = [*(dot.gflops for dot in dots), *(speed.flops / GIGA for speed in speeds)]
    axes.set_ylim(min(heights) / 2.5, max(heights) * 2)
    ticker = require("matplotlib.ticker", extra="report")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_formatter(lambda value, _: tick(value))
    axes.set_xlabel("Operations per byte of weights and activations")
    axes.set_ylabel("GFLOP/s")
    for number, speed in enumerate(speeds):
        _roof(axes, speed, (left, right), number)
    for dot in dots:
        look = looks[dot.series]
        axes.plot(
            [dot.intensity],
            [dot.gflops],
            marker=look.marker,
            markersize=6.5,
            markerfacecolor=SURFACE.stand_in if dot.hollow else look.paint.stand_in,
            markeredgecolor=look.paint.stand_in,
            markeredgewidth=1.3,
            linestyle="none",
            zorder=5,
        )
    ranked = sorted(dots, key=lambda dot: -dot.share)
    labels = [Label(text=d.label, x=d.intensity, y=d.gflops, strong=False) for d in ranked]
    homeless = place(axes, labels)
    alt = "; ".join(
        f"{dot.label}: {significant(dot.gflops)} GFLOP/s at {significant(dot.intensity)} operations"
        f" a byte, {100 * dot.share:.0f} % of the roof"
        for dot in ranked
    )
    best, worst = ranked[0], ranked[-1]
    said = f"{best.label} reaches {100 * best.share:.0f} % of what the machine allows"
    said += f", {worst.label} {100 * worst.share:.0f} %." if worst is not best else "."
    said += f" {homeless} without room for a label." if homeless else ""
    svg = inline(figure, key=key, title=title, alt=alt)
    return Chart(key=key, title=title, caption=said, alt=alt, svg=svg)


def _roof(axes: Any, speed: Speed, span: tuple[float, float], number: int) -> None:
    """The slope of memory and the flat of arithmetic, named at its right end."""
    xs = [span[0], speed.flops / speed.bandwidth, span[1]]
    axes.plot(
        xs,
        [speed.roof(x) / GIGA for x in xs],
        color=MUTED.stand_in,
        linewidth=1.1,
        linestyle="-" if number == 0 else (0, (5, 2)),
        zorder=2,
    )
    threads = f"{speed.threads} thread{'s' * (speed.threads > 1)}"
    axes.text(
        span[1] / 1.05,
        speed.flops / GIGA * (1.06 if number else 0.94),
        threads,
        ha="right",
        va="bottom" if number else "top",
        fontsize=SMALL_PT,
        color=INK.stand_in,
    )
