"""How charts look: one size, one type size, colours that follow the page's theme, shapes for grey.

Colours are CSS variables of the page with a fallback, so that a chart changes with the theme and
still stands alone. matplotlib knows no variables: it draws in stand-in colours that
`chart_svg.inline` replaces. Series differ by shape and fill as well, so colour is never needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

from harness.extras import require
from harness.report.figures import significant

WIDTH_IN = 5.0
POINTS_PER_INCH = 72
FONT_PT = 10.0
SMALL_PT = 9.0


class Paint(NamedTuple):
    """A themed colour: ``stand_in`` is drawn, ``--chart-<name>`` is shown."""

    name: str
    stand_in: str
    fallback: str


INK = Paint("ink", "#010101", "#1f2328")
MUTED = Paint("muted", "#010102", "#59636e")
GRID = Paint("grid", "#010103", "#e3e7ec")
SURFACE = Paint("surface", "#010104", "#ffffff")
SERIES = (
    Paint("1", "#010111", "#0072b2"),
    Paint("2", "#010112", "#c04a00"),
    Paint("3", "#010113", "#00805c"),
    Paint("4", "#010114", "#a2467f"),
    Paint("5", "#010115", "#8a6100"),
    Paint("6", "#010116", "#4b4b9b"),
)
"""Six hues told apart by the colour-blind (after Okabe & Ito 2008), darkened for a white page."""
PAINTS = (INK, MUTED, GRID, SURFACE, *SERIES)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")

RC: dict[str, Any] = {
    "font.size": FONT_PT,
    "font.family": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "svg.hashsalt": "detbench",
    "text.parse_math": False,
    "axes.edgecolor": MUTED.stand_in,
    "axes.labelcolor": INK.stand_in,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": FONT_PT,
    "grid.color": GRID.stand_in,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED.stand_in,
    "xtick.labelcolor": INK.stand_in,
    "xtick.labelsize": SMALL_PT,
    "ytick.color": MUTED.stand_in,
    "ytick.labelcolor": INK.stand_in,
    "ytick.labelsize": SMALL_PT,
    "hatch.linewidth": 0.8,
    "text.color": INK.stand_in,
    "figure.facecolor": "none",
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of a series."""

    paint: Paint
    marker: str


def looks(names: Iterable[str]) -> Mapping[str, Look]:
    """One look for each name, in sorted order, so that it does not depend on what was measured."""
    return {
        name: Look(SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)])
        for index, name in enumerate(sorted(set(names)))
    }


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib with our settings and nobody else's, and as it was afterwards.

    A label may hold letters that the measuring font lacks; the browser draws them with its own.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="report")
    backend = {"backend", "backend_fallback"}
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in backend}
    with catch_warnings(), matplotlib.rc_context({**defaults, **RC}):
        filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def new_figure(height_in: float, *, left: float, right: float, top: float, bottom: float) -> Any:
    """A figure with one axes; the margins are inches. Answers ``(figure, axes)``."""
    figure = require("matplotlib.figure", extra="report").Figure(figsize=(WIDTH_IN, height_in))
    canvas = require("matplotlib.backends.backend_agg", extra="report").FigureCanvasAgg(figure)
    canvas.get_renderer()
    axes = figure.add_axes(
        (
            left / WIDTH_IN,
            bottom / height_in,
            (WIDTH_IN - left - right) / WIDTH_IN,
            (height_in - top - bottom) / height_in,
        )
    )
    return figure, axes


def text_size(figure: Any, text: str, size_pt: float, *, bold: bool = False) -> tuple[float, float]:
    """Width and height of ``text`` in pixels of the figure."""
    properties = require("matplotlib.font_manager", extra="report").FontProperties(
        family=RC["font.family"], size=size_pt, weight="bold" if bold else "normal"
    )
    renderer = figure.canvas.get_renderer()
    width, height, _ = renderer.get_text_width_height_descent(text, properties, False)
    return float(width), float(height)


def latency_axis(axis: Any, low: float, high: float) -> None:
    """Scale and tick an axis for ``low`` to ``high`` ms: logarithmic beyond a factor of 6."""
    ticker = require("matplotlib.ticker", extra="report")
    setter = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    limits = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
    if high > 6 * low:
        setter("log")
        limits(low / 1.35, high * 1.5)
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        room = max(high - low, 0.05 * high)
        limits(max(0.0, low - 0.25 * room), high + 0.45 * room)
        axis.set_major_locator(ticker.MaxNLocator(6))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick(value)))


def tick(value: float) -> str:
    """A tick's number without trailing zeros."""
    shown = significant(value, 3)
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
