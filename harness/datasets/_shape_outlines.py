"""The outlines of the drawn classes, as signed distances.

Each function takes ``u``, ``v`` (float32 arrays, the object's own frame, v upwards, the object
inside the circle of radius `REACH`) and ``p`` in 0..1, its free proportion, and answers the
distance to the outline: negative inside, in the unit of ``u``. Only + - * / sqrt abs min max are
used on arrays: IEEE 754 rounds these the same on every machine, so the same pixels come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
Outline = Callable[[Field, Field, float], Field]
REACH = 1.1


def turn(angle: float) -> tuple[float, float]:
    """Cosine and sine, rounded to 1e-6 so that no two C libraries disagree."""
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def radius(u: Field, v: Field) -> Field:
    """Distance from the origin."""
    out: Field = np.sqrt(u * u + v * v)
    return out


def box(u: Field, v: Field, half_width: float, half_height: float) -> Field:
    """Distance to a centred rectangle (exact along its sides)."""
    distance: Field = np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)
    return distance


def sides(u: Field, v: Field, count: int) -> list[Field]:
    """Distances to the lines through the sides of a regular polygon whose inner radius is 0."""
    normals = (turn(2 * math.pi * (k + 0.5) / count + math.pi / 2) for k in range(count))
    return [u * cos + v * sin for cos, sin in normals]


def polygon(u: Field, v: Field, count: int) -> Field:
    """Distance to a regular polygon with its corners on the unit circle, one of them upwards."""
    first, *others = sides(u, v, count)
    for other in others:
        np.maximum(first, other, out=first)
    first -= turn(math.pi / count)[0]
    return first


def disc(u: Field, v: Field, p: float) -> Field:
    """A full circle."""
    return radius(u, v) - (0.9 + 0.1 * p)


def ring(u: Field, v: Field, p: float) -> Field:
    """A circle with a round hole of 40 to 70 % of its radius."""
    hole = 0.4 + 0.3 * p
    distance: Field = np.abs(radius(u, v) - (1 + hole) / 2) - (1 - hole) / 2
    return distance


def crescent(u: Field, v: Field, p: float) -> Field:
    """A disc less a second, smaller disc that reaches over its edge."""
    shift = 0.42 + 0.16 * p
    distance: Field = np.maximum(radius(u, v) - 1, 0.82 - radius(u - shift, v))
    return distance


def heart(u: Field, v: Field, p: float) -> Field:
    """A square on its corner with a half disc on each upper side."""
    side = 0.96 + 0.1 * p
    half = side / 2
    across, up = np.abs(u), v + 0.12
    square = (np.maximum(across + up, across - up) * 0.707107) - half
    upper = np.maximum(square, -up - half)
    lobe = radius(across - half * 0.707107, up - half * 0.707107) - half
    distance: Field = np.minimum(np.maximum(upper, square), lobe)
    return distance


def triangle(u: Field, v: Field, p: float) -> Field:
    """An isosceles triangle, from wide to slim."""
    wide = 0.62 + 0.18 * p
    cos, sin = turn(math.atan2(wide, 1.65))
    flank = np.abs(u) * cos + (v - 0.95) * sin
    distance: Field = np.maximum(flank, -v - 0.7)
    return distance


def arrow(u: Field, v: Field, p: float) -> Field:
    """A triangular head on a shaft."""
    neck = 0.05 + 0.15 * p
    wide = 0.8 - 0.1 * p
    cos, sin = turn(math.atan2(wide, 1 - neck))
    head = np.maximum(np.abs(u) * cos + (v - 1) * sin, neck - v)
    shaft = box(u, v - (neck - 1) / 2, 0.24 + 0.06 * p, (1 + neck) / 2)
    distance: Field = np.minimum(head, shaft)
    return distance


def square(u: Field, v: Field, p: float) -> Field:
    """A square."""
    return box(u, v, 0.7 + 0.06 * p, 0.7 + 0.06 * p)


def hexagon(u: Field, v: Field, p: float) -> Field:
    """A regular hexagon."""
    return polygon(u, v, 6) + 0.06 * p


def star(u: Field, v: Field, p: float) -> Field:
    """A star of five points: what lies within at least four sides of its inner pentagon."""
    first, second, *others = sides(u, -v, 5)
    most, next_most = np.maximum(first, second), np.minimum(first, second)
    for other in others:
        np.maximum(next_most, np.minimum(most, other), out=next_most)
        np.maximum(most, other, out=most)
    next_most -= 0.309017 + 0.08 * p
    distance: Field = np.maximum(next_most, radius(u, v) - 1.05)
    return distance


def cross(u: Field, v: Field, p: float) -> Field:
    """A plus sign."""
    arm = 0.26 + 0.14 * p
    distance: Field = np.minimum(box(u, v, 0.98, arm), box(u, v, arm, 0.98))
    return distance


OUTLINES: dict[str, Outline] = {
    "disc": disc,
    "ring": ring,
    "crescent": crescent,
    "heart": heart,
    "triangle": triangle,
    "arrow": arrow,
    "square": square,
    "hexagon": hexagon,
    "star": star,
    "cross": cross,
}
