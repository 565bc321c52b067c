"""Labels beside points, without collisions.

Greedy: the most important point chooses first among places around it, near before far. A place may
not cover another label, a marker or the edge of the chart, and rather not a whisker. Where there is
none, the point stays without a label and the caption says how many did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.report.chart_style import INK, MUTED, SMALL_PT, text_size

DISTANCES_PX = (7.0, 16.0, 28.0, 42.0, 60.0, 82.0)
ANGLES_DEG = (0, 180, 45, 315, 135, 225, 90, 270)
MARKER_PX = 5.0
LEADER_FROM_PX = 16.0
ASTRAY = 60.0
"""Cost in pixels of a place as near to another point: the reader would take it for its label."""


class Box(NamedTuple):
    """A rectangle in pixels of the figure."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def distance(self, spot: tuple[float, float]) -> float:
        """From a point to the nearest edge; 0 inside."""
        across = max(self.left - spot[0], 0.0, spot[0] - self.right)
        up = max(self.bottom - spot[1], 0.0, spot[1] - self.top)
        return math.hypot(across, up)

    def within(self, other: Box) -> bool:
        """Whether no part of this lies outside ``other``."""
        return (
            self.left >= other.left
            and self.bottom >= other.bottom
            and self.right <= other.right
            and self.top <= other.top
        )


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text that belongs to the data point (x, y)."""

    text: str
    x: float
    y: float
    strong: bool = False


def place(
    axes: Any,
    labels: Sequence[Label],
    whiskers: Sequence[Box] = (),
    unnamed: Sequence[tuple[float, float]] = (),
) -> int:
    """Draw the labels, most important first; answers how many found no place.

    ``whiskers`` are boxes in pixels that are better not covered, ``unnamed`` data points that have
    a marker and no label. Scales and limits of the axes must be set before.
    """
    spots = [_pixels(axes, label.x, label.y) for label in labels]
    points = [*spots, *(_pixels(axes, x, y) for x, y in unnamed)]
    markers = [Box(x - MARKER_PX, y - MARKER_PX, x + MARKER_PX, y + MARKER_PX) for x, y in points]
    area = axes.get_window_extent()
    frame = Box(area.x0, area.y0, area.x1, area.y1)
    taken: list[Box] = []
    homeless = 0
    for label, spot in zip(labels, spots, strict=True):
        size = text_size(axes.figure, label.text, SMALL_PT, bold=label.strong)
        others = [other for other in points if other != spot]
        found = _best(spot, size, frame, [*taken, *markers], whiskers, others)
        if found is None:
            homeless += 1
            continue
        box, distance = found
        taken.append(box)
        _draw(axes, label, spot, box, leader=distance >= LEADER_FROM_PX)
    return homeless


def _best(
    spot: tuple[float, float],
    size: tuple[float, float],
    frame: Box,
    solid: Sequence[Box],
    soft: Sequence[Box],
    others: Sequence[tuple[float, float]],
) -> tuple[Box, float] | None:
    best: tuple[float, Box, float] | None = None
    for distance in DISTANCES_PX:
        for rank, angle in enumerate(ANGLES_DEG):
            box = _box(spot, size, distance, angle)
            if not box.within(frame) or any(box.overlap(other) > 0 for other in solid):
                continue
            cost = distance + rank + sum(box.overlap(other) for other in soft)
            near = box.distance(spot) + MARKER_PX
            cost += ASTRAY * sum(box.distance(other) < near for other in others)
            if best is None or cost < best[0]:
                best = (cost, box, distance)
    return (best[1], best[2]) if best else None


def _box(
    spot: tuple[float, float], size: tuple[float, float], distance: float, angle: float
) -> Box:
    """The text's box when its nearest edge lies ``distance`` from the spot in that direction."""
    across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    width, height = size[0] + 2, size[1] + 2
    x = spot[0] + distance * across + (width / 2) * _sign(across)
    y = spot[1] + distance * up + (height / 2) * _sign(up)
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _sign(value: float) -> float:
    return 0.0 if abs(value) < 1e-9 else math.copysign(1.0, value)


def _draw(axes: Any, label: Label, spot: tuple[float, float], box: Box, *, leader: bool) -> None:
    inverse = axes.transData.inverted()
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    if leader:
        end = (
            min(max(spot[0], box.left), box.right),
            min(max(spot[1], box.bottom), box.top),
        )
        (x0, y0), (x1, y1) = inverse.transform(spot), inverse.transform(end)
        axes.plot([x0, x1], [y0, y1], color=MUTED.stand_in, linewidth=0.6, zorder=2)
    x, y = inverse.transform(middle)
    axes.text(
        x,
        y,
        label.text,
        ha="center",
        va="center_baseline",
        fontsize=SMALL_PT,
        fontweight="bold" if label.strong else "normal",
        color=INK.stand_in,
        zorder=6,
    )


def _pixels(axes: Any, x: float, y: float) -> tuple[float, float]:
    px, py = axes.transData.transform((x, y))
    return float(px), float(py)


def whisker_box(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> Box:
    """The box in pixels of a thin line between two data points."""
    (x0, y0), (x1, y1) = _pixels(axes, *start), _pixels(axes, *end)
    return Box(min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near ``wanted``, in the same order, at least ``gap`` apart, within low..high.

    Neighbours that are too close are merged into a block around their mean, until none are.
    """

    def clamped(centre: float, members: Sequence[int]) -> float:
        half = gap * (len(members) - 1) / 2
        return max(low + half, min(centre, high - half))

    blocks: list[list[int]] = []
    centres: list[float] = []
    for index in sorted(range(len(wanted)), key=lambda index: (wanted[index], index)):
        blocks.append([index])
        centres.append(clamped(wanted[index], blocks[-1]))
        while len(blocks) > 1 and _touch(blocks, centres, gap):
            last, centre = blocks.pop(), centres.pop()
            weight = len(last) + len(blocks[-1])
            mean = (centres[-1] * len(blocks[-1]) + centre * len(last)) / weight
            blocks[-1] += last
            centres[-1] = clamped(mean, blocks[-1])
    placed = [0.0] * len(wanted)
    for block, centre in zip(blocks, centres, strict=True):
        for number, index in enumerate(block):
            placed[index] = centre + gap * (number - (len(block) - 1) / 2)
    return placed


def _touch(blocks: Sequence[Sequence[int]], centres: Sequence[float], gap: float) -> bool:
    distance = centres[-1] - centres[-2]
    return distance < gap * (len(blocks[-1]) + len(blocks[-2])) / 2
