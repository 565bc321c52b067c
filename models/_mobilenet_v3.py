"""MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244) under SSDLite heads.

The variant of qfgaohao/pytorch-ssd: squeeze-and-excite sits after the projection, and a block of
stride 1 whose channels change adds its input through a convolution. Its own hard swish and hard
sigmoid are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from models._heads import lite_heads
from models._layers import Activation, relu
from models._spec import levels_300
from models._ssd import Ssd

LEVELS = levels_300()

_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 64))
"""Expanded and final channels of the stride-2 blocks after the backbone."""


class Row(NamedTuple):
    """One block: a row of the paper's tables 1 and 2."""

    kernel: int
    expanded: int
    outputs: int
    squeeze: bool
    activation: Activation
    stride: int


class SqueezeExcite(nn.Module):
    """Channels weighted by what their means say (Hu et al. 2018, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1, bias=False),
            nn.BatchNorm2d(channels // 4),
            relu(),
            nn.Conv2d(channels // 4, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.se(x)
        return x * weight


class Block(nn.Module):
    """Expand, depthwise, project, squeeze-and-excite; ``expand`` is a tap as in MobileNetV2."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        kernel, hidden, outputs, squeeze, activation, stride = row
        self.stride = stride
        # The published state dicts have the squeeze first.
        self.se = SqueezeExcite(outputs) if squeeze else None
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.nolinear1 = activation()
        self.conv2 = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        self.bn2 = nn.BatchNorm2d(hidden)
        self.nolinear2 = activation()  # quantizers look for one activation behind one convolution
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.nolinear1(self.bn1(self.conv1(x)))
        y = self.nolinear2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.se is not None:
            y = self.se(y)
        if self.stride == 1:
            y = y + self.shortcut(x)
        return y


def backbone(rows: Sequence[Row], last: int) -> nn.Sequential:
    """A convolution, one block a row, and a last layer of ``last`` channels."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
    ]
    channels = 16
    for row in rows:
        layers.append(Block(channels, row))
        channels = row.outputs
    layers += [nn.Conv2d(channels, last, 1, bias=False), nn.BatchNorm2d(last), nn.Hardswish()]
    return nn.Sequential(*layers)


def build(classes: int, rows: Sequence[Row], *, tapped: int, last: int) -> Ssd:
    """The detector: the first map is what the block before row ``tapped`` answers.

    Args:
        last: channels of the backbone's last layer, the second feature map.
    """
    base = backbone(rows, last)
    maps = [rows[tapped - 1].outputs, last]
    extras: list[nn.Module] = []
    for hidden, outputs in _EXTRAS:
        extras.append(Block(maps[-1], Row(3, hidden, outputs, False, nn.Hardswish, 2)))
        maps.append(outputs)
    heads = lite_heads(classes, (300, 300), LEVELS, maps, activation=nn.ReLU6)
    return Ssd(base, extras, heads, (3 + tapped, len(base)))
