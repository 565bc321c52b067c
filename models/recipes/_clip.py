"""ReLU with an upper limit of its own for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelClip(nn.Module):
    """``min(max(x, 0), upper)``; x is (n, channels, h, w).

    A ReLU6 whose channels were scaled by ``1 / s`` is the one with limits ``6 / s``.
    """

    upper: Tensor

    def __init__(self, channels: int, limit: float) -> None:
        super().__init__()
        self.register_buffer("upper", torch.full((1, channels, 1, 1), limit))

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(nn.functional.relu(x), self.upper)
