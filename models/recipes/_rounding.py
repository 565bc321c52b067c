"""Weights on a grid of integers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.recipes._scheme import Scheme

PARTS = torch.linspace(0.02, 1.0, 50).tolist()
"""Parts of a row's range that are tried for the least squared error."""
OUTSIDE = 1e-4
"""What the range by percentile leaves out on each side, as `harness.ranges.OUTSIDE`."""


class Grid(NamedTuple):
    """The values that the rows of a matrix can have: ``scale * (integer - zero)``.

    Attributes:
        scale: ``(rows, 1)`` float32.
        zero: ``(rows, 1)`` float32, whole numbers.
        least, most: of the integers.
    """

    scale: Tensor
    zero: Tensor
    least: int
    most: int

    def place(self, rows: Tensor) -> Tensor:
        """Where values lie on the grid, between its integers or beyond them."""
        return rows / self.scale + self.zero

    def at(self, integers: Tensor) -> Tensor:
        """The values of integers, which are cut to the grid."""
        return (integers.clamp(self.least, self.most) - self.zero) * self.scale

    def nearest(self, rows: Tensor) -> Tensor:
        """The nearest value on the grid."""
        return self.at(self.place(rows).round())


def rows_of(weight: Tensor, scheme: Scheme) -> Tensor:
    """A view of weights, (outputs, …), with one row for each range."""
    return weight.reshape(len(weight) if scheme.per_channel else 1, -1)


def grid_of(rows: Tensor, scheme: Scheme) -> Grid:
    """The grid whose ranges are chosen as ``scheme`` says."""
    low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
    if scheme.ranges == "percentile":
        below = torch.quantile(rows, OUTSIDE, 1, keepdim=True, interpolation="lower")
        above = torch.quantile(rows, 1 - OUTSIDE, 1, keepdim=True, interpolation="higher")
        low, high = torch.maximum(low, below.clamp(max=0)), torch.minimum(high, above.clamp(min=0))
    if scheme.ranges != "mse":
        return _spanning(low, high, scheme)
    best = torch.full_like(low, torch.inf)
    part = torch.ones_like(low)
    for tried in PARTS:
        grid = _spanning(tried * low, tried * high, scheme)
        error = (grid.nearest(rows) - rows).square().sum(1, keepdim=True)
        part = torch.where(error <= best, tried, part)
        best = torch.minimum(error, best)
    return _spanning(part * low, part * high, scheme)


def _spanning(low: Tensor, high: Tensor, scheme: Scheme) -> Grid:
    if scheme.symmetric:
        most = 2 ** (scheme.bits - 1) - 1
        scale = torch.maximum(-low, high) / most
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return Grid(scale, torch.zeros_like(scale), -most, most)
    most = 2**scheme.bits - 1
    scale = (high - low) / most
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return Grid(scale, (-low / scale).round(), 0, most)


def rounded(conv: nn.Conv2d, scheme: Scheme) -> Tensor:
    """The convolution's weights, each the nearest value on the grid."""
    rows = rows_of(conv.weight.detach(), scheme)
    return grid_of(rows, scheme).nearest(rows).reshape(conv.weight.shape)


def convolve(conv: nn.Conv2d, weight: Tensor, x: Tensor) -> Tensor:
    """What ``conv`` would answer with other weights; its own way to pad is kept."""
    return torch.func.functional_call(conv, {"weight": weight}, (x,))  # type: ignore[no-any-return]  # torch's stub says Any
