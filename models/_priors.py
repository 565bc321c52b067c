"""Prior boxes of single-shot detectors: the centre of every cell of every map, in a few shapes.

Source: SSD (Liu et al. 2016, section 2.2) with the sizes given as pixels per map, as in
qfgaohao/pytorch-ssd. Order: map, row, column, then shape (small square, large square, and for
each ratio the wide box before the tall one), which is the order of the heads' channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Level:
    """The priors of one feature map.

    Attributes:
        cells: height and width of the square map.
        stride: pixels between the centres of neighbouring cells.
        smallest: side of the small square, in pixels.
        largest: the large square has side ``sqrt(smallest * largest)``.
        ratios: width over height of the other shapes; each also counts turned by a quarter.
    """

    cells: int
    stride: float
    smallest: float
    largest: float
    ratios: tuple[float, ...]

    @property
    def shapes(self) -> list[tuple[float, float]]:
        """Width and height of each shape in pixels."""
        side = self.smallest
        large = sqrt(self.smallest * self.largest)
        boxes = [(side, side), (large, large)]
        for ratio in self.ratios:
            root = sqrt(ratio)
            boxes += [(side * root, side / root), (side / root, side * root)]
        return boxes


def make_priors(size: int, levels: Sequence[Level]) -> NDArray[np.float32]:
    """``(priors, 4)`` float32 ``(cx, cy, w, h)`` relative to a square image, clamped to 0..1."""
    maps = []
    for level in levels:
        centres = (np.arange(level.cells) + 0.5) * level.stride / size
        cy, cx = np.meshgrid(centres, centres, indexing="ij")
        shapes = np.asarray(level.shapes) / size
        grid = np.empty((level.cells, level.cells, len(shapes), 4))
        grid[..., 0] = cx[..., None]
        grid[..., 1] = cy[..., None]
        grid[..., 2:] = shapes
        maps.append(grid.reshape(-1, 4))
    return np.clip(np.concatenate(maps), 0.0, 1.0).astype(np.float32)


def rescale(
    levels: Sequence[Level], size: int, other: int, cells: Sequence[int]
) -> tuple[Level, ...]:
    """The same priors, relative to the image, for a network run at another input size.

    Args:
        size: the input size that ``levels`` are made for, in pixels.
        other: the new input size.
        cells: side of every feature map at the new size.
    """
    return tuple(
        Level(
            cells=count,
            stride=level.stride if other == size else other / count,
            smallest=level.smallest * other / size,
            largest=level.largest * other / size,
            ratios=level.ratios,
        )
        for level, count in zip(levels, cells, strict=True)
    )
