"""Prior boxes of single-shot detectors: the centre of every cell of every map, in a few shapes.

Source: SSD (Liu et al. 2016, section 2.2). Each family of detectors has a rule of its own for the
shapes; they meet in `Level`. Order: map, row, column, then shape, which is the order of the heads'
channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Size: TypeAlias = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The priors of one feature map.

    Attributes:
        cells: height and width of the map.
        shapes: width and height of each box in pixels.
        stride: pixels between the centres of neighbouring cells, in both directions; None where
            the cells divide the image evenly.
    """

    cells: Size
    shapes: tuple[tuple[float, float], ...]
    stride: float | None = None


def ssd_level(
    cells: int, stride: float, smallest: float, largest: float, ratios: Iterable[float]
) -> Level:
    """A square map by the rule of qfgaohao/pytorch-ssd, with sizes in pixels.

    Args:
        smallest: side of the small square.
        largest: the large square has side ``sqrt(smallest * largest)``.
        ratios: width over height of the other shapes, which have the small square's area; each
            also counts turned by a quarter, the wide box before the tall one.
    """
    large = sqrt(smallest * largest)
    shapes = [(smallest, smallest), (large, large)]
    for ratio in ratios:
        root = sqrt(ratio)
        shapes += [(smallest * root, smallest / root), (smallest / root, smallest * root)]
    return Level(cells=(cells, cells), stride=stride, shapes=tuple(shapes))


def make_priors(size: Size, levels: Sequence[Level], *, clamp: bool = True) -> NDArray[np.float32]:
    """``(priors, 4)`` float32 ``(cx, cy, w, h)`` relative to an image of ``size``.

    Args:
        size: height and width of the network's input in pixels.
        clamp: cut every value to 0..1, as the PyTorch families do and TensorFlow's do not.
    """
    height, width = size
    maps = []
    for level in levels:
        rows, columns = level.cells
        cy, cx = np.meshgrid(
            (np.arange(rows) + 0.5) * (level.stride or height / rows) / height,
            (np.arange(columns) + 0.5) * (level.stride or width / columns) / width,
            indexing="ij",
        )
        grid = np.empty((rows, columns, len(level.shapes), 4))
        grid[..., 0] = cx[..., None]
        grid[..., 1] = cy[..., None]
        grid[..., 2:] = np.asarray(level.shapes) / (width, height)
        maps.append(grid.reshape(-1, 4))
    priors = np.concatenate(maps)
    return (np.clip(priors, 0.0, 1.0) if clamp else priors).astype(np.float32)


def rescale(
    levels: Sequence[Level], size: Size, other: Size, cells: Sequence[Size]
) -> tuple[Level, ...]:
    """The same priors, relative to the image, for a network run at another input size.

    Args:
        size: the input size that ``levels`` are made for, in pixels.
        other: the new input size, of the same shape (height over width).
        cells: height and width of every feature map at the new size.
    """
    if other == size:
        return tuple(levels)
    growth = other[0] / size[0]
    return tuple(
        Level(
            cells=count,
            shapes=tuple((width * growth, height * growth) for width, height in level.shapes),
        )
        for level, count in zip(levels, cells, strict=True)
    )
