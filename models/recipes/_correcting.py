"""The mean shift of each channel under rounded weights, taken off the biases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.recipes._graph import trace, walk_beside
from models.recipes._rounding import convolve, rounded
from models.recipes._scheme import Scheme


def correct(network: nn.Module, scheme: Scheme, images: Tensor) -> list[float]:
    """Change the biases in place; answers the largest shift of each convolution."""
    corrected: dict[str, Tensor] = {}
    shifts = []

    def visit(name: str, conv: nn.Conv2d, x: Tensor) -> Tensor:
        as_it_is, as_it_becomes = x.chunk(2)
        expected = conv(as_it_is)
        got = convolve(conv, rounded(conv, scheme), as_it_becomes)
        if name not in corrected:  # one that is called again keeps what it was given
            shift = (got - expected).mean((0, 2, 3))
            corrected[name] = -shift
            shifts.append(float(shift.abs().max()))
        return torch.cat([expected, got + corrected[name][:, None, None]])

    walk_beside(trace(network), images, visit)
    with torch.no_grad():
        for name, change in corrected.items():
            conv = network.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            bias = change if conv.bias is None else conv.bias + change
            conv.bias = nn.Parameter(bias)
    return shifts
