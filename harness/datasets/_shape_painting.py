"""Surfaces, backgrounds and light of the drawn scenes; canvases are (h, w, 3) float32, 0..255.

As in `_shape_outlines`, array arithmetic is limited to what every machine rounds the same way, and
random numbers to `Generator.random`, `integers` and `bytes`, so a scene is the same everywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.datasets._shape_outlines import Field, box, radius, turn

Canvas = NDArray[np.float32]


def uniform(rng: Generator, low: float, high: float) -> float:
    """A number in low..high."""
    return low + (high - low) * float(rng.random())


def stretch(grid: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear enlargement of a (gh, gw, ...) grid whose corners stay corners."""
    for axis, size in ((0, height), (1, width)):
        last = grid.shape[axis] - 1
        at = np.arange(size, dtype=np.float32) * np.float32(last / max(size - 1, 1))
        low = np.minimum(at.astype(np.intp), last - 1)
        part = (at - low).reshape((-1,) + (1,) * (grid.ndim - 1 - axis))
        near = grid.take(low, axis=axis)
        far = grid.take(low + 1, axis=axis)
        far -= near
        far *= part
        far += near
        grid = far
    return grid


def noise(rng: Generator, height: int, width: int, coarse: int, octaves: int) -> Field:
    """Smooth noise in about -1..1: ``octaves`` layers, each twice as fine and half as strong."""
    cells, layer = coarse, np.zeros((2, 2), np.float32)
    strength = 1.0
    for _ in range(octaves):
        rows, columns = max(cells * height // width, 1) + 1, cells + 1
        layer = stretch(layer, rows, columns)
        layer += (rng.random((rows, columns), np.float32) - 0.5) * np.float32(2 * strength)
        cells, strength = cells * 2, strength / 2
    layer *= np.float32(0.7)
    return stretch(layer, height, width)


def wave(x: Field) -> Field:
    """A triangle wave of period 1 in -1..1."""
    x = x - np.floor(x)
    x -= 0.5
    np.abs(x, out=x)
    x *= 4
    x -= 1
    return x


def stripes(rng: Generator, height: int, width: int, period: float, sharp: float) -> Field:
    """Stripes in -1..1 at a random angle; ``sharp`` 1 is a triangle wave, 8 has hard edges."""
    cos, sin = turn(uniform(rng, 0, math.pi))
    rows = np.arange(height, dtype=np.float32) * np.float32(sin / period)
    columns = np.arange(width, dtype=np.float32) * np.float32(cos / period)
    field = wave(rows[:, None] + columns + np.float32(rng.random()))
    field *= np.float32(sharp)
    return np.clip(field, -1, 1, out=field)


def checkers(rng: Generator, height: int, width: int) -> Field:
    """A chess board in -1..1 at a random angle."""
    period = uniform(rng, 14, 60)
    cos, sin = turn(uniform(rng, 0, math.pi))
    rows = np.arange(height, dtype=np.float32)[:, None] / np.float32(period)
    columns = np.arange(width, dtype=np.float32) / np.float32(period)
    field = wave(rows * sin + columns * cos) * wave(rows * cos - columns * sin)
    field *= 12
    return np.clip(field, -1, 1, out=field)


def background(rng: Generator, height: int, width: int) -> Canvas:
    """A colour gradient under smooth noise, stripes or a chess board."""
    base = rng.integers(30, 226, 3).astype(np.float32)
    grid = base + rng.integers(-45, 46, (3, 3, 3)).astype(np.float32)
    canvas = stretch(grid, height, width)
    tint = (0.6 + 0.8 * rng.random(3, np.float32)) * np.float32(uniform(rng, 8, 34))
    kind = float(rng.random())
    if kind < 0.55:
        pattern = noise(rng, height, width, int(rng.integers(3, 12)), int(rng.integers(2, 5)))
    elif kind < 0.75:
        pattern = stripes(rng, height, width, uniform(rng, 8, 70), uniform(rng, 1, 6))
    elif kind < 0.87:
        pattern = checkers(rng, height, width)
    else:
        pattern = noise(rng, height, width, 4, 2)
        pattern *= wave(pattern * np.float32(uniform(rng, 1, 4)))
    canvas += pattern[..., None] * tint
    return canvas


def window(canvas: Canvas, x: float, y: float, reach: float) -> tuple[Canvas, Field, Field] | None:
    """The part of the canvas within ``reach`` of (x, y), and its pixel centres from there."""
    height, width = canvas.shape[:2]
    left, right = max(int(x - reach), 0), min(int(x + reach) + 2, width)
    top, bottom = max(int(y - reach), 0), min(int(y + reach) + 2, height)
    if left >= right or top >= bottom:
        return None
    across = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)
    down = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    return canvas[top:bottom, left:right], across, down


def blend(patch: Canvas, cover: Field, colour: Field) -> None:
    """Paint ``colour`` (3,) or (h, w, 3) over the patch where ``cover`` (h, w) says so."""
    paint = colour - patch
    paint *= cover[..., None]
    patch += paint


def strokes(rng: Generator, canvas: Canvas, count: int) -> None:
    """Straight and bent lines that are no object: clutter that a detector must ignore."""
    height, width = canvas.shape[:2]
    for _ in range(count):
        x, y = uniform(rng, 0, width), uniform(rng, 0, height)
        half, thick = uniform(rng, 8, 60), uniform(rng, 0.7, 2.6)
        cos, sin = turn(uniform(rng, 0, 2 * math.pi))
        colour = rng.integers(0, 256, 3).astype(np.float32)
        bend, strength = float(rng.random()), uniform(rng, 0.35, 0.9)
        place = window(canvas, x, y, half + thick + 1)
        if place is None:
            continue
        patch, across, down = place
        u, v = across * cos + down * sin, down * cos - across * sin
        if bend < 0.6:
            distance = box(u, v, half, thick)
        else:  # less than half of a thin circle
            distance = np.abs(radius(u, v) - half) - thick
            distance = np.maximum(distance, np.float32(half * uniform(rng, 0.3, 0.8)) - u)
        blend(patch, np.clip(0.5 - distance, 0, 1) * np.float32(strength), colour)


def light(rng: Generator, canvas: Canvas) -> None:
    """Gain, a gradient of light with a colour cast, and now and then a cast shadow; in place."""
    height, width = canvas.shape[:2]
    lamp = np.float32(uniform(rng, 0.75, 1.1)) + (rng.random((2, 2, 1), np.float32) - 0.5) * 0.5
    cast = 1 + (rng.random(3, np.float32) - 0.5) * np.float32(0.3)
    canvas *= stretch(lamp, height, width) * cast
    if float(rng.random()) < 0.25:
        cos, sin = turn(uniform(rng, 0, 2 * math.pi))
        soft = np.float32(1 / uniform(rng, 2, 30))
        rows = (np.arange(height, dtype=np.float32) - height * uniform(rng, 0.2, 0.8)) * sin * soft
        columns = (np.arange(width, dtype=np.float32) - width * uniform(rng, 0.2, 0.8)) * cos * soft
        dark = np.clip(rows[:, None] + columns, 0, 1)
        dark *= np.float32(-uniform(rng, 0.25, 0.5))
        dark += 1
        canvas *= dark[..., None]


def lens(rng: Generator, canvas: Canvas) -> Canvas:
    """Blur (up to two passes of 1-2-1 both ways, on four images in ten) and sensor noise."""
    passes = (0, 0, 0, 1, 2)[int(rng.integers(5))]
    for _ in range(passes):
        for axis in (0, 1):
            middle = np.swapaxes(canvas, 0, axis)
            inner = middle[:-2] + middle[2:]
            inner *= 0.25
            middle[1:-1] *= 0.5
            middle[1:-1] += inner
    grain = uniform(rng, 0, 14)
    speckle = np.frombuffer(rng.bytes(canvas.size), np.uint8).reshape(canvas.shape)
    canvas += speckle * np.float32(grain / 255)
    canvas += np.float32(0.5 - grain / 2)
    return canvas
