"""A network that trains with its weights and activations rounded. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from models.recipes._holding import put, take
from models.recipes._rounding import grid_of, rows_of
from models.recipes._scheme import Scheme
from models.recipes._simulating import simulate


class Round(nn.Module):
    """Weights rounded to their grid; the gradient passes as if they were not."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self._scheme = scheme

    def forward(self, weight: Tensor) -> Tensor:
        rows = rows_of(weight.detach(), self._scheme)
        nearest = grid_of(rows, self._scheme).nearest(rows).reshape(weight.shape)
        return weight + (nearest - weight.detach())


@contextmanager
def rounding(
    network: nn.Module,
    weights: Scheme,
    activations: Scheme,
    images: Iterable[NDArray[np.float32]],
) -> Iterator[tuple[fx.GraphModule, int]]:
    """The network's graph with everything rounded, over the same layers, to be trained.

    Afterwards the network's weights are rounded, and its activations are as they were.

    Args:
        images: choose the ranges of activations.

    Yields:
        The graph, and at how many places activations are rounded.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    before = [layer.weight.detach().clone() for layer in layers]
    traced, places = simulate(network, weights, activations, images)
    with torch.no_grad():
        for layer, weight in zip(layers, before, strict=True):
            layer.weight.copy_(weight)
    for layer in layers:
        put(layer, Round(weights))
    try:
        yield traced, places
    finally:
        for layer in layers:
            take(layer)
