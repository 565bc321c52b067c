"""The page of a sensitivity scan: curves of the layers that lose most, and a table of all."""

from __future__ import annotations

from typing import NamedTuple

from harness.report.chart_lines import Axes, Line, lines
from harness.report.chart_style import drawing, looks
from harness.report.chart_svg import Chart
from harness.report.figures import count
from harness.report.render import plain
from harness.sensitivity import Point, Scan

DRAWN = 6
"""Curves that are drawn: those of the layers that lose most."""


class Cell(NamedTuple):
    """``share`` shades it: the drop as a part of the float network's mAP."""

    text: str
    share: str
    interval: str


class Row(NamedTuple):
    """One layer."""

    name: str
    weights: str
    cells: list[Cell]
    chosen: str


def page(scan: Scan) -> str:
    """A page that opens from disk and loads nothing.

    Raises:
        MissingExtra: what draws reports is not installed.
    """
    chosen = scan.choice.layers if scan.choice else {}
    rows = [
        Row(
            layer.name,
            f"{layer.weights:,}",
            [_cell(point, scan.map or 0.0) for point in scan.curve(layer.name)],
            f"{chosen[layer.name]:.0%}" if chosen else "",
        )
        for layer in scan.layers
    ]
    return plain(
        "sensitivity.html.j2",
        title=f"How far {scan.model} can be pruned, layer by layer",
        sentences=_sentences(scan),
        chart=curves(scan),
        columns=[f"{sparsity:.0%}" for sparsity in scan.sparsities],
        rows=rows,
        chosen=bool(chosen),
    )


def curves(scan: Scan) -> Chart:
    """mAP over sparsity of the layers that lose most."""
    worst = {layer.name: min(p.change for p in scan.curve(layer.name)) for layer in scan.layers}
    shown = sorted(worst, key=lambda name: worst[name])[:DRAWN]
    drawn = [
        Line(
            label=name,
            series=name,
            points=(
                (0.0, 100 * (scan.map or 0.0)),
                *((100 * p.sparsity, 100 * p.map) for p in scan.curve(name)),
            ),
        )
        for name in shown
    ]
    left = len(worst) - len(shown)
    with drawing():
        return lines(
            drawn,
            looks(shown),
            Axes(x="Weights of one layer that are zero, %", y="VOC12 mAP, %"),
            key="sensitivity",
            title="The layers that lose most",
            caption="One layer is pruned at a time, all others are whole. "
            + (f"{count(left, 'more layer', 'more layers')} lose less." if left else ""),
        )


def _sentences(scan: Scan) -> list[str]:
    said = [
        f"{scan.model} with weights {scan.weights} scores {100 * (scan.map or 0):.1f} VOC12 mAP on"
        f" {scan.images} images of {scan.data}. Weights are pruned by magnitude, pattern"
        f" {scan.pattern}, without training after it. Revision {scan.git_revision[:12]}."
    ]
    if scan.choice is not None:
        choice = scan.choice
        said.append(
            f"For a drop of at most {100 * choice.target_drop:g} AP, {choice.sparsity:.1%} of the"
            f" weights can go: the network pruned so changes by {100 * choice.change:+.1f} AP"
            f" (95 % interval {100 * choice.low:+.1f} to {100 * choice.high:+.1f}) on these images,"
            " which it was chosen on."
        )
    return said


def _cell(point: Point, whole: float) -> Cell:
    text = f"{100 * point.change:+.1f}"
    share = max(0.0, -point.change / whole) if whole else 0.0
    return Cell(
        f"({text})" if point.low <= 0 <= point.high else text,
        f"{share:.2f}" if share >= 0.01 else "",
        f"{100 * point.low:+.1f} to {100 * point.high:+.1f} AP",
    )
