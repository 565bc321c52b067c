"""One drawn scene: pixels, boxes and labels from one random generator.

Objects are placed back to front. A place is taken only if at least `IN_IMAGE` of the new object
lies in the image and at least `VISIBLE` of it, and of each object before it, stays unhidden there;
after `TRIES` failed places the object is left out, so nothing that can be seen lacks a box.

The box is that of the object's own shape clipped by the image, as if nothing hid it: from the
left edge of the first to the right edge of the last pixel column that it covers by at least half,
rows alike. Hidden parts count, as in Pascal VOC's and COCO's guess of the full extent; parts
outside the image do not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.datasets._shape_outlines import OUTLINES, REACH, Field, turn
from harness.datasets._shape_painting import (
    Canvas,
    background,
    blend,
    lens,
    light,
    noise,
    stripes,
    strokes,
    uniform,
)

NAMES = tuple(OUTLINES)
SIZES = ((240, 320), (320, 240), (214, 320), (320, 214), (320, 320), (256, 320), (180, 320))
IN_IMAGE = 0.6
VISIBLE = 0.55
TRIES = 8


class Scene(NamedTuple):
    """``image`` (h, w, 3) uint8; ``boxes`` (n, 4) float32 pixels; ``kinds`` (n,) into `NAMES`.

    ``masks`` are the objects' own unhidden, image-clipped shapes, (h, w) bool each.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    kinds: NDArray[np.int64]
    masks: list[NDArray[np.bool_]]


class Stamp(NamedTuple):
    """One object, not placed yet: ``cover`` (s, s) in 0..1, its distance ``depth`` in pixels."""

    cover: Field
    depth: Field
    solid: NDArray[np.bool_]
    area: int


def stamp(rng: Generator, kind: int, size: float) -> Stamp:
    """An object of ``kind``, about ``size`` pixels across, turned and stretched at random."""
    extent = size / 2
    stretched = uniform(rng, 0.82, 1.22)
    cos, sin = turn(uniform(rng, 0, 2 * math.pi))
    lean_cos, lean_sin = turn(uniform(rng, 0, math.pi))
    shift_x, shift_y, proportion = float(rng.random()), float(rng.random()), float(rng.random())
    reach = int(extent * REACH * max(stretched, 1)) + 2
    at = np.arange(2 * reach, dtype=np.float32) + np.float32(0.5 - reach)
    x, y = (at - np.float32(shift_x)) / extent, (at[:, None] - np.float32(shift_y)) / extent
    s, t = x * lean_cos + y * lean_sin, (y * lean_cos - x * lean_sin) / stretched
    depth = OUTLINES[NAMES[kind]](s * cos + t * sin, t * cos - s * sin, proportion)
    depth *= np.float32(extent)
    cover = np.clip(0.5 - depth, 0, 1)
    solid = cover >= 0.5
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    cut = np.s_[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2]
    return Stamp(cover[cut], depth[cut], solid[cut], int(np.count_nonzero(solid)))


def sizes(rng: Generator, count: int, side: float) -> list[float]:
    """Sizes in pixels, largest first: 8 to 70 % of ``side``, smaller where there are many."""
    top = 0.70 if count <= 2 else 0.54 if count <= 4 else 0.38
    chosen = []
    for _ in range(count):
        low = 0.08 if float(rng.random()) < 0.1 else 0.14
        share = float(rng.random())
        chosen.append(side * (low + (top - low) * share * (1 + share) / 2))
    return sorted(chosen, reverse=True)


def surface(rng: Generator, ground: NDArray[np.int64], item: Stamp) -> Field:
    """The object's paint, (s, s, 3) or (3,): a colour that stands out from ``ground``, textured."""
    least = 45 if float(rng.random()) < 0.12 else 130  # sum of differences over the channels
    colours = rng.integers(15, 241, (8, 3))
    apart = np.abs(colours - ground).sum(1)
    good = np.flatnonzero((apart >= least) & ((least > 45) | (apart < 130)))
    best = good[0] if good.size else int(apart.argmax())
    colour: Field = colours[best].astype(np.float32)
    height, width = item.cover.shape
    kind, strength = float(rng.random()), np.float32(uniform(rng, 8, 26))
    rim = float(rng.random()) < 0.25
    if kind < 0.35 and not rim:
        return colour
    if kind < 0.35:
        pattern: Field = np.zeros((height, width), np.float32)
    elif kind < 0.6:
        pattern = noise(rng, height, width, int(rng.integers(2, 6)), 2)
    elif kind < 0.8:
        pattern = stripes(rng, height, width, uniform(rng, 5, 30), uniform(rng, 1, 5))
    else:
        cos, sin = turn(uniform(rng, 0, 2 * math.pi))
        rows = np.linspace(-1, 1, height, dtype=np.float32)
        pattern = rows[:, None] * sin + np.linspace(-1, 1, width, dtype=np.float32) * cos
    pattern *= strength
    if rim:
        band = item.depth > np.float32(-uniform(rng, 1.5, 4))
        pattern -= band * np.float32(uniform(rng, 25, 60))
    painted: Field = colour + pattern[..., None]
    return painted


def scene(rng: Generator) -> Scene:
    """Draw one scene; the generator's state decides everything."""
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    canvas = background(rng, height, width)
    strokes(rng, canvas, int(rng.integers(0, 9)))
    count = 1 + int(min(rng.integers(0, 10), rng.integers(0, 10)))
    owner = np.zeros((height, width), np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    kinds: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    areas: list[int] = []
    visible: list[int] = []
    for size in sizes(rng, count, math.sqrt(height * width)):
        kind = int(rng.integers(len(NAMES)))
        item = stamp(rng, kind, size)
        place = find_place(rng, item, owner, areas, visible)
        if place is None:
            continue
        top, left, visible = place
        onto, part = overlap(owner, item, top, left)
        paint_object(rng, canvas, item, onto, part)
        solid = item.solid[part]
        owner[onto][solid] = len(boxes) + 1
        mask = np.zeros((height, width), np.bool_)
        mask[onto] = solid
        masks.append(mask)
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        y, x = onto[0].start, onto[1].start
        boxes.append((x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1))
        kinds.append(kind)
        areas.append(item.area)
    if float(rng.random()) < 0.15:
        strokes(rng, canvas, 2)
    light(rng, canvas)
    canvas = lens(rng, canvas)
    image = np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
    table = np.array(boxes, np.float32).reshape(-1, 4)
    return Scene(image, table, np.array(kinds, np.int64), masks)


def overlap(
    owner: NDArray[np.uint8], item: Stamp, top: int, left: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a stamp at (top, left) meets the image, and which part of the stamp that is."""
    spans = []
    for start, length, limit in zip((top, left), item.cover.shape, owner.shape, strict=True):
        low, high = max(start, 0), min(start + length, limit)
        spans.append((slice(low, high), slice(low - start, high - start)))
    (rows, part_rows), (columns, part_columns) = spans
    return (rows, columns), (part_rows, part_columns)


def find_place(
    rng: Generator,
    item: Stamp,
    owner: NDArray[np.uint8],
    areas: list[int],
    visible: list[int],
) -> tuple[int, int, list[int]] | None:
    """Top left corner that keeps every object recognizable, and how much of each is then seen."""
    inside = float(rng.random()) < 0.7
    for _ in range(TRIES):
        ends = []
        for limit, length in zip(owner.shape, item.cover.shape, strict=True):
            beyond = 0.0 if inside else 0.4 * length
            ends.append(int(uniform(rng, -beyond, limit - length + beyond)))
        onto, part = overlap(owner, item, ends[0], ends[1])
        if part[0].start >= part[0].stop or part[1].start >= part[1].stop:
            continue
        solid = item.solid[part]
        shown = int(np.count_nonzero(solid))
        if shown < IN_IMAGE * item.area:
            continue
        hidden = np.bincount(owner[onto][solid], minlength=len(areas) + 1)[1:]
        left_over = [seen - int(lost) for seen, lost in zip(visible, hidden, strict=True)]
        if all(seen >= VISIBLE * area for seen, area in zip(left_over, areas, strict=True)):
            return ends[0], ends[1], [*left_over, shown]
    return None


def paint_object(
    rng: Generator,
    canvas: Canvas,
    item: Stamp,
    onto: tuple[slice, slice],
    part: tuple[slice, slice],
) -> None:
    """Paint a stamp onto the canvas, at times with a shadow beside it."""
    patch, cover = canvas[onto], item.cover[part]
    ground = patch[::4, ::4].reshape(-1, 3).astype(np.int64)
    paint = surface(rng, ground.sum(0) // len(ground), item)
    if float(rng.random()) < 0.3:
        dark, shift = np.float32(uniform(rng, 0.25, 0.55)), int(rng.integers(2, 7))
        shaded = patch[shift:, shift:]
        below = cover[: -shift or None, : -shift or None] * dark
        shaded *= (1 - below)[..., None]
    blend(patch, cover, paint if paint.ndim == 1 else paint[part])
