"""What is in a data set: objects per class, sizes of pictures and boxes, and all that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.boxes import area
from harness.errors import BadAnnotation, BadImage
from harness.interfaces import Dataset, Truth
from harness.records import Record

SMALL, MEDIUM = 32.0**2, 96.0**2
"""Areas in pixels up to which COCO calls an object small, and medium."""


class ClassCount(Record, frozen=True, kw_only=True):
    """Objects of one class; difficult ones and crowds are among them."""

    name: str
    objects: int
    images: int
    difficult: int
    crowd: int


class Spread(Record, frozen=True, kw_only=True):
    """Smallest, middle and largest of some values."""

    least: float
    median: float
    most: float


class Survey(Record, frozen=True, kw_only=True):
    """A data set read from its first image to its last.

    ``box_sides`` are square roots of box areas relative to the picture's; ``small``, ``medium`` and
    ``large`` count objects by COCO's areas. ``problems`` has a sentence for each fault.
    """

    dataset: str
    split: str
    images: int
    labelled: bool
    objects: int
    empty_images: int
    small: int
    medium: int
    large: int
    classes: tuple[ClassCount, ...]
    widths: Spread | None
    heights: Spread | None
    box_sides: Spread | None
    problems: tuple[str, ...]


class _Seen(NamedTuple):
    truths: list[Truth]
    sizes: list[tuple[int, int]]
    truth_sizes: list[tuple[int, int] | None]
    problems: list[str]


def survey(data: Dataset, indices: Iterable[int] | None = None) -> Survey:
    """Read every picture and annotation of ``data``; faults are collected, not raised.

    Args:
        indices: the order to read in, for a progress bar; None for all.
    """
    seen = _Seen([], [], [], list(data.dropped))
    for index in range(len(data)) if indices is None else indices:
        size = _size(data, index, seen.problems)
        if size is not None:
            seen.sizes.append(size)
        if data.labelled:
            _truth(data, index, size, seen)
    areas = _joined([_areas(truth) for truth in seen.truths])
    return Survey(
        dataset=data.name,
        split=data.split,
        images=len(data),
        labelled=data.labelled,
        objects=len(areas),
        empty_images=sum(not len(truth.boxes) for truth in seen.truths),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < MEDIUM)).sum()),
        large=int((areas >= MEDIUM).sum()),
        classes=_classes(data.labels, seen.truths) if data.labelled else (),
        widths=_spread([width for width, _ in seen.sizes]),
        heights=_spread([height for _, height in seen.sizes]),
        box_sides=_spread(_sides(seen)),
        problems=tuple(seen.problems),
    )


def _areas(truth: Truth) -> NDArray[np.float64]:
    """Areas that decide what COCO calls small: the segments' where there are any."""
    return area(truth.boxes) if truth.area is None else truth.area


def _size(data: Dataset, index: int, problems: list[str]) -> tuple[int, int] | None:
    """(width, height) of the decoded picture; None with a problem noted."""
    try:
        height, width = data.image(index).shape[:2]
    except (BadImage, BadAnnotation) as error:
        problems.append(str(error))
        return None
    return width, height


def _truth(data: Dataset, index: int, size: tuple[int, int] | None, seen: _Seen) -> None:
    try:
        seen.truths.append(data.truth(index))
        seen.truth_sizes.append(size)
    except (BadImage, BadAnnotation) as error:
        if str(error) not in seen.problems[-1:]:  # a lost picture may be both's fault
            seen.problems.append(str(error))


def _classes(labels: Sequence[str], truths: Sequence[Truth]) -> tuple[ClassCount, ...]:
    counts = []
    for label, name in enumerate(labels[1:], start=1):
        here = [truth.labels == label for truth in truths]
        counts.append(
            ClassCount(
                name=name,
                objects=sum(int(one.sum()) for one in here),
                images=sum(bool(one.any()) for one in here),
                difficult=_marked(here, [truth.difficult for truth in truths]),
                crowd=_marked(here, [truth.crowd for truth in truths]),
            )
        )
    return tuple(counts)


def _marked(here: Sequence[NDArray[np.bool_]], flags: Sequence[NDArray[np.bool_]]) -> int:
    return sum(int((one & flag).sum()) for one, flag in zip(here, flags, strict=True))


def _sides(seen: _Seen) -> list[float]:
    """Relative side of each box in a picture that could be read."""
    pairs = zip(seen.truths, seen.truth_sizes, strict=True)
    parts = [np.sqrt(area(truth.boxes) / (s[0] * s[1])) for truth, s in pairs if s is not None]
    return [float(side) for side in _joined(parts)]


def _joined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *parts])


def _spread(values: Sequence[float]) -> Spread | None:
    if not len(values):
        return None
    return Spread(least=min(values), median=float(np.median(values)), most=max(values))
