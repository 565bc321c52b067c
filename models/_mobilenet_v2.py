"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381) under SSD heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models._layers import RELU6, InvertedResidual, Style, conv_bn
from models._ssd import Ssd

BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, repeats and first stride of the backbone's stages (paper, table 2)."""

TAPPED = 14
"""Block of ``base_net`` whose expanded activations are the SSDLite's first feature map."""


class ExpandedTaps(Ssd):
    """The expanded activations of the blocks ``taps`` and the last layer feed the heads."""

    def backbone(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        found = []
        for position, block in enumerate(self.base_net):
            if position in self.taps:
                assert isinstance(block, InvertedResidual)
                found.append(block.expand(x))
                x = block.project(found[-1])
            else:
                x = block(x)
        return [*found, x], x


def backbone(
    width: float, *, style: Style = RELU6, rounded: Callable[[float], int] = int
) -> tuple[nn.Sequential, dict[int, int]]:
    """The backbone, and the expanded channels by block; by -1 those of the last layer.

    Args:
        width: multiplies all channels; the last layer never has fewer than 1280.
        rounded: makes a whole number of channels.
    """
    channels = rounded(32 * width)
    layers: list[nn.Module] = [conv_bn(3, channels, style, kernel=3, stride=2)]
    expanded = {}
    for expansion, base, repeats, first_stride in BLOCKS:
        outputs = rounded(base * width)
        for repeat in range(repeats):
            expanded[len(layers)] = channels * expansion
            stride = first_stride if repeat == 0 else 1
            layers.append(
                InvertedResidual(channels, outputs, style, stride=stride, expansion=expansion)
            )
            channels = outputs
    expanded[-1] = rounded(1280 * max(width, 1.0))
    layers.append(conv_bn(channels, expanded[-1], style, kernel=1))
    return nn.Sequential(*layers), expanded


def by_eights(channels: float) -> int:
    """The multiple of 8 next to ``channels``, not below 90 % of it (paper's code, MobileNetV3)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
