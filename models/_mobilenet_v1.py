"""MobileNetV1 (Howard et al. 2017, https://arxiv.org/abs/1704.04861, table 1) under SSD heads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models._layers import RELU, conv_bn, depthwise_unit

UNITS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""Channels and stride of the depthwise-separable units."""

TAPS = (12, 14)
"""Layers before the two feature maps, of 512 and 1024 channels."""

CHANNELS = (512, 1024, 512, 256, 256, 256)
"""Of the feature maps, the extra ones included."""


def backbone(first: int, units: Sequence[tuple[int, int]]) -> nn.Sequential:
    """A convolution of stride 2 to ``first`` channels, then depthwise-separable units."""
    layers = [conv_bn(3, first, RELU, kernel=3, stride=2)]
    channels = first
    for outputs, stride in units:
        layers.append(depthwise_unit(channels, outputs, RELU, stride=stride))
        channels = outputs
    return nn.Sequential(*layers)
