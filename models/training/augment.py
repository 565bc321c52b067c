"""What a training image goes through: colour, mirror, crop, expand (SSD, Liu et al. 2016, 2.2).

Crop and expand are one operation here: a window is chosen on the image's plane, inside it or
around it, and what the window shows is resized to the network's input. Everything is drawn from
the generator that is passed in, so an image's augmentation depends on its seed alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from harness.records import ImageSpec, Record
from models._priors import Size

_TRIES = 20


class Sample(NamedTuple):
    """One image with its objects.

    Attributes:
        image: ``(h, w, 3)`` uint8 RGB.
        boxes: ``(n, 4)`` float32 ``(xmin, ymin, xmax, ymax)`` in pixels of ``image``.
        labels: ``(n,)`` int64, never 0.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


class Augmentation(Record, frozen=True, kw_only=True):
    """How strongly images are changed. Chances are 0..1; factors are drawn up to the limit.

    ``crop`` is the chance of an IoU-constrained crop whose sides are at least ``crop_least`` of
    the image's; ``expand`` the chance of a view up to ``expand_most`` times as large. Brightness
    (fraction of 255), contrast, saturation (fractions) and hue (degrees) vary by plus or minus
    their value.
    """

    mirror: float = 0.5
    crop: float = 0.5
    crop_least: float = 0.5
    expand: float = 0.2
    expand_most: float = 1.5
    brightness: float = 0.1
    contrast: float = 0.25
    saturation: float = 0.3
    hue: float = 18.0


class View(NamedTuple):
    """What the network is shown: ``pixels`` (h, w, 3) float32 0..255, boxes relative 0..1."""

    pixels: NDArray[np.float32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def augment(
    sample: Sample,
    size: Size,
    how: Augmentation,
    spec: ImageSpec,
    rng: Generator,
    *,
    close_up: bool = False,
) -> View:
    """A random view of ``sample``, ``size`` high and wide, for a model that sees ``spec``."""
    if close_up:
        window = choose_close_up(sample, size[0] / spec.height, rng)
    else:
        window = choose_window(sample, how, rng)
    view = look(sample, window, size, spec)
    if rng.random() < how.mirror:
        view = mirror(view)
    return view._replace(pixels=recolour(view.pixels, how, rng))


def choose_window(sample: Sample, how: Augmentation, rng: Generator) -> NDArray[np.float64]:
    """A window ``(xmin, ymin, xmax, ymax)`` in pixels: the image, a part of it, or more than it.

    A crop has an IoU of at least a drawn threshold with some object, keeps the centre of at least
    one, and is between half and twice as wide as high, in units of the image's sides.
    """
    height, width, _ = sample.image.shape
    size = np.array([width, height], np.float64)
    kind = rng.random()
    if kind < how.crop and len(sample.boxes):
        least = rng.choice((0.0, 0.1, 0.3, 0.5))
        for _ in range(_TRIES):
            sides = rng.uniform(how.crop_least, 1.0, 2)
            if not 0.5 <= sides[0] / sides[1] <= 2:
                continue
            corner = rng.uniform(0, 1, 2) * (1 - sides)
            window = np.concatenate([corner * size, (corner + sides) * size])
            if (
                _overlap(window, sample.boxes).max() >= least
                and _inside(window, sample.boxes).any()
            ):
                return window
    elif kind < how.crop + how.expand:
        ratio = rng.uniform(1.0, max(how.expand_most, 1.0))
        corner = -rng.uniform(0, 1, 2) * (ratio - 1)
        return np.concatenate([corner * size, (corner + ratio) * size])
    return np.concatenate([np.zeros(2), size])


def choose_close_up(sample: Sample, share: float, rng: Generator) -> NDArray[np.float64]:
    """A part of the image, about ``share`` of its sides, with the centre of an object inside."""
    height, width, _ = sample.image.shape
    size = np.array([width, height], np.float64)
    sides = np.minimum(share * rng.uniform(0.8, 1.25) * size, size)
    centre = rng.uniform(0, 1, 2) * size
    if len(sample.boxes):
        box = sample.boxes[rng.integers(len(sample.boxes))].astype(np.float64)
        centre = (box[:2] + box[2:]) / 2
    corner = np.clip(centre - sides * rng.uniform(0.1, 0.9, 2), 0, size - sides)
    return np.concatenate([corner, corner + sides])


def look(sample: Sample, window: NDArray[np.float64], size: Size, spec: ImageSpec) -> View:
    """What ``window`` shows, resized; outside of the image it shows the mean colour.

    Objects whose centre is in the window stay; their boxes are clipped by it.
    """
    height, width, _ = sample.image.shape
    sides = np.array(size[::-1])  # x before y, as in boxes
    scale = sides / (window[2:] - window[:2])
    seen = np.concatenate([np.maximum(window[:2], 0), np.minimum(window[2:], (width, height))])
    at = np.round((seen - np.tile(window[:2], 2)) * np.tile(scale, 2)).astype(int)
    part = Image.fromarray(sample.image).resize(
        (max(at[2] - at[0], 1), max(at[3] - at[1], 1)), Image.Resampling.BILINEAR, box=tuple(seen)
    )
    if part.size == size[::-1]:
        pixels = np.asarray(part, np.float32)
    else:
        pixels = np.tile(np.asarray(spec.mean, np.float32), (*size, 1))
        pixels[at[1] : at[1] + part.size[1], at[0] : at[0] + part.size[0]] = np.asarray(part)
    keep = _inside(window, sample.boxes)
    moved = (sample.boxes[keep] - np.tile(window[:2], 2)) * np.tile(scale / sides, 2)
    boxes = np.clip(moved, 0, 1).astype(np.float32)
    return View(pixels, boxes, sample.labels[keep])


def mirror(view: View) -> View:
    """Left and right exchanged."""
    boxes = view.boxes[:, (2, 1, 0, 3)].copy()
    boxes[:, (0, 2)] = 1 - boxes[:, (0, 2)]
    return View(np.ascontiguousarray(view.pixels[:, ::-1]), boxes, view.labels)


_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""RGB to luma and two chroma axes (NTSC), where saturation is a length and hue an angle."""


def recolour(pixels: NDArray[np.float32], how: Augmentation, rng: Generator) -> NDArray[np.float32]:
    """Brightness, contrast, saturation and hue in one affine map of the colours; 0..255."""
    light = rng.uniform(-how.brightness, how.brightness) * 255
    contrast = 1 + rng.uniform(-how.contrast, how.contrast)
    saturation = 1 + rng.uniform(-how.saturation, how.saturation)
    angle = np.deg2rad(rng.uniform(-how.hue, how.hue))
    turn = np.eye(3)
    turn[1:, 1:] = saturation * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix = contrast * np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ
    offset = light + 127.5 * (1 - contrast)
    changed: NDArray[np.float32] = pixels @ matrix.T.astype(np.float32) + np.float32(offset)
    np.clip(changed, 0, 255, out=changed)
    return changed


def _inside(window: NDArray[np.float64], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which boxes have their centre in the window."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside: NDArray[np.bool_] = np.all((centres > window[:2]) & (centres < window[2:]), axis=1)
    return inside


def _overlap(window: NDArray[np.float64], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of the window with each box."""
    low, high = np.maximum(window[:2], boxes[:, :2]), np.minimum(window[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlap: NDArray[np.float64] = shared / ((window[2:] - window[:2]).prod() + areas - shared)
    return overlap
