"""Names of lines at the right edge of a chart, moved apart, each tied to the end of its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.extras import require
from harness.report.chart_labels import spread
from harness.report.chart_style import INK, MUTED, SMALL_PT, WIDTH_IN, text_size

LABEL_GAP_PX = 14.5
MOST_LABEL_IN = 2.3


class End(NamedTuple):
    """Where a line ends, in data coordinates."""

    label: str
    x: float
    y: float


def label_ends(axes: Any, ends: Sequence[End]) -> None:
    """Write the names; scales and limits of the axes must be set before."""
    area = axes.get_window_extent()
    transform, inverse = axes.transData, axes.transData.inverted()
    places = [transform.transform((end.x, end.y)) for end in ends]
    heights = spread([float(place[1]) for place in places], LABEL_GAP_PX, area.y0, area.y1)
    for end, place, height in zip(ends, places, heights, strict=True):
        start = inverse.transform((place[0] + 5, place[1]))
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
            end.label,
            fontsize=SMALL_PT,
            color=INK.stand_in,
            va="center_baseline",
            ha="left",
            clip_on=False,
        )


def label_room(labels: Sequence[str]) -> float:
    """Inches at the right that the longest name needs, within reason."""
    figure = require("matplotlib.figure", extra="report").Figure()
    require("matplotlib.backends.backend_agg", extra="report").FigureCanvasAgg(figure)
    longest = max(text_size(figure, label, SMALL_PT)[0] for label in labels) / figure.dpi
    return min(float(longest) + 0.2, MOST_LABEL_IN, WIDTH_IN / 2)
