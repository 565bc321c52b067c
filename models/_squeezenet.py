"""SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360) under SSD heads.

Version 1.1 moves the pools forward (https://github.com/forresti/SqueezeNet, SqueezeNet_v1.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models._layers import relu

_STAGES = (((16, 64),) * 2, ((32, 128),) * 2, ((48, 192),) * 2 + ((64, 256),) * 2)
"""Squeezed and expanded channels of the fire modules between the pools."""

CHANNELS = 512
"""Of the last feature map."""


class Fire(nn.Module):
    """Squeeze 1x1, then expand by 1x1 and 3x3 side by side (paper, figure 1)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.squeeze_activation = relu()
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = relu()
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = relu()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        one = self.expand1x1_activation(self.expand1x1(x))
        three = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([one, three], 1)


def backbone() -> nn.Sequential:
    """The 13 layers before the classifier; layer 7 answers 256 channels, 12 and 13 `CHANNELS`."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), relu()]
    channels = 64
    for stage in _STAGES:
        layers.append(nn.MaxPool2d(3, 2))
        for squeezed, expanded in stage:
            layers.append(Fire(channels, squeezed, expanded))
            channels = 2 * expanded
    return nn.Sequential(*layers)
