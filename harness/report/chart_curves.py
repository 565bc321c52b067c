"""Precision over recall, one small panel a class, the export beside its float parent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.accuracy.voc import voc_matches
from harness.interfaces import Detections, Truth
from harness.report.chart_style import (
    INK,
    MUTED,
    SERIES,
    SMALL_PT,
    WIDTH_IN,
    new_figure,
)
from harness.report.chart_svg import Chart, inline
from harness.report.figures import count, percent

COLUMNS = 4
MOST_CLASSES = 16
PANEL_IN = 1.18
LEFT_IN, BOTTOM_IN, TOP_IN, GAP_IN = 0.5, 0.5, 0.3, 0.2
MOST_POINTS = 80

Line = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class ClassCurve:
    """One class: the curve and AP of the export, and of its parent where there is one."""

    label: str
    objects: int
    line: Line
    ap: float
    parent: Line | None
    parent_ap: float | None


def class_curves(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    parent: Sequence[Detections] | None,
    labels: Sequence[str],
) -> list[ClassCurve]:
    """Curves at an IoU of 0.5 of every class that has an object, as VOC 2012 counts."""
    mine = voc_matches(truths, found, len(labels))
    theirs = voc_matches(truths, parent, len(labels)) if parent is not None else None
    curves = []
    for index, label in enumerate(labels[1:]):
        objects = int(mine[index].positives.sum())
        if not objects:
            continue
        line = _line(mine[index].hit[0], mine[index].ignored[0], objects)
        other = None
        if theirs is not None:
            other = _line(theirs[index].hit[0], theirs[index].ignored[0], objects)
        curves.append(
            ClassCurve(
                label=label,
                objects=objects,
                line=line,
                ap=_area(line),
                parent=other,
                parent_ap=None if other is None else _area(other),
            )
        )
    return curves


def _line(hit: NDArray[np.bool_], ignored: NDArray[np.bool_], objects: int) -> Line:
    """Recall and the highest precision at that recall or beyond, at every hit."""
    hits = hit[~ignored]
    so_far = np.cumsum(hits)
    precision = (so_far / np.arange(1, len(hits) + 1))[hits]
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return so_far[hits] / objects, highest


def _area(line: Line) -> float:
    recall, precision = line
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def curves_chart(
    curves: Sequence[ClassCurve], names: tuple[str, str | None], *, key: str, title: str
) -> Chart | None:
    """Panels of up to `MOST_CLASSES` classes; ``names`` are the export's and its parent's."""
    if not curves:
        return None
    shown = sorted(curves, key=_telling)[:MOST_CLASSES]
    rows = math.ceil(len(shown) / COLUMNS)
    height = TOP_IN + BOTTOM_IN + rows * (PANEL_IN + TOP_IN) - TOP_IN
    figure, frame = new_figure(height, left=LEFT_IN, right=0.1, top=TOP_IN, bottom=BOTTOM_IN)
    frame.set_axis_off()
    width = (WIDTH_IN - LEFT_IN - 0.1 - (COLUMNS - 1) * GAP_IN) / COLUMNS
    for place, curve in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        bottom = height - TOP_IN - PANEL_IN - row * (PANEL_IN + TOP_IN)
        left = LEFT_IN + column * (width + GAP_IN)
        axes = figure.add_axes(
            (left / WIDTH_IN, bottom / height, width / WIDTH_IN, PANEL_IN / height)
        )
        lowest = place + COLUMNS >= len(shown)
        _panel(axes, curve, outer=(column == 0, lowest))
    figure.text(0.5, 0.04 / height, "Recall", ha="center", va="bottom", fontsize=SMALL_PT)
    figure.text(
        0.08 / WIDTH_IN, 0.5, "Precision", ha="left", va="center", rotation=90, fontsize=SMALL_PT
    )
    alt = "; ".join(_said(curve) for curve in shown)
    return Chart(
        key=key,
        title=title,
        caption=_caption(curves, shown, names),
        alt=alt,
        svg=inline(figure, key=key, title=title, alt=alt),
    )


def _telling(curve: ClassCurve) -> tuple[float, int, str]:
    """Classes whose AP changed most come first, then those with many objects."""
    change = 0.0 if curve.parent_ap is None else abs(curve.ap - curve.parent_ap)
    return -round(change, 6), -curve.objects, curve.label


def _panel(axes: Any, curve: ClassCurve, *, outer: tuple[bool, bool]) -> None:
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.05)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"] if outer[1] else [])
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"] if outer[0] else [])
    if curve.parent is not None:
        recall, precision = _drawn(curve.parent)
        axes.step(
            recall, precision, where="pre", color=MUTED.stand_in, linestyle="--", linewidth=1.3
        )
    recall, precision = _drawn(curve.line)
    axes.step(recall, precision, where="pre", color=SERIES[0].stand_in, linewidth=1.6)
    label = curve.label if len(curve.label) <= 15 else f"{curve.label[:14]}…"
    axes.set_title(label, fontsize=SMALL_PT, loc="left", pad=3, color=INK.stand_in)
    axes.text(
        0.04, 0.06, _aps(curve), transform=axes.transAxes, fontsize=SMALL_PT, color=INK.stand_in
    )


def _drawn(line: Line) -> Line:
    """The curve from recall 0 to its end and down to 0, with no more points than can be seen."""
    recall, precision = line
    if not len(recall):
        return np.array([0.0, 0.0]), np.array([0.0, 0.0])
    if len(recall) > MOST_POINTS:
        kept = np.unique(np.linspace(0, len(recall) - 1, MOST_POINTS).round().astype(int))
        recall, precision = recall[kept], precision[kept]
    return (
        np.concatenate([[0.0], recall, recall[-1:]]),
        np.concatenate([precision[:1], precision, [0.0]]),
    )


def _aps(curve: ClassCurve) -> str:
    if curve.parent_ap is None:
        return f"AP {percent(curve.ap)}"
    return f"{percent(curve.parent_ap)} → {percent(curve.ap)}"


def _said(curve: ClassCurve) -> str:
    return f"{curve.label}: AP {_aps(curve).removeprefix('AP ')} %"


def _caption(
    curves: Sequence[ClassCurve], shown: Sequence[ClassCurve], names: tuple[str, str | None]
) -> str:
    mine, parent = names
    lines = f"Solid: {mine}." if parent is None else f"Solid: {mine}; dashed: {parent}."
    figures = "Figures are AP at an IoU of .5, in %"
    figures += "." if parent is None else ", float → export."
    text = f"{lines} {figures}"
    if left := len(curves) - len(shown):
        text += f" {count(left, 'more class', 'more classes')} not drawn: they changed less."
    return text
