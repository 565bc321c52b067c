"""Heads and extra feature maps of the detectors, from the channels of the maps.

A head of ``values`` numbers per prior answers ``(n, shapes * values, h, w)``. All are lists in the
order of the maps; positions inside are the names in published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models._layers import Activation, separable
from models._priors import Level, Size
from models._ssd import Heads


def lite_heads(
    classes: int,
    size: Size,
    levels: tuple[Level, ...],
    channels: Sequence[int],
    *,
    activation: Activation = nn.ReLU,
    norm: bool = True,
    last_kernel: int = 1,
) -> Heads:
    """Depthwise-separable heads (SSDLite: MobileNetV2, section 6.2), the last map's a plain one."""

    def heads(values: int) -> list[nn.Module]:
        *lite, last = [
            (inputs, values * len(level.shapes))
            for inputs, level in zip(channels, levels, strict=True)
        ]
        return [
            *(separable(*ends, kernel=3, activation=activation, norm=norm) for ends in lite),
            nn.Conv2d(*last, last_kernel, padding=last_kernel // 2),
        ]

    return _pair(classes, size, levels, heads(classes), heads(4))


def plain_heads(
    classes: int, size: Size, levels: tuple[Level, ...], channels: Sequence[int]
) -> Heads:
    """A convolution 3x3 per map (SSD, Liu et al. 2016, figure 2)."""

    def heads(values: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, values * len(level.shapes), 3, padding=1)
            for inputs, level in zip(channels, levels, strict=True)
        ]

    return _pair(classes, size, levels, heads(classes), heads(4))


def _pair(
    classes: int,
    size: Size,
    levels: tuple[Level, ...],
    classification: list[nn.Module],
    regression: list[nn.Module],
) -> Heads:
    return Heads(
        classes=classes,
        size=size,
        levels=levels,
        classification=classification,
        regression=regression,
    )


def extra(inputs: int, hidden: int, *step: nn.Module) -> nn.Sequential:
    """A pointwise convolution to fewer channels, ReLU, then ``step``: one more, smaller map."""
    return nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.ReLU(), *step)


def plain_extra(
    inputs: int, hidden: int, outputs: int, *, stride: int = 2, padding: int = 1
) -> nn.Sequential:
    """An extra map by a convolution 3x3 and ReLU (SSD, figure 2)."""
    return extra(inputs, hidden, nn.Conv2d(hidden, outputs, 3, stride, padding), nn.ReLU())


def lite_extra(
    inputs: int, hidden: int, outputs: int, *, padding: int = 1, norm: bool = False
) -> nn.Sequential:
    """An extra map by a depthwise-separable convolution of stride 2, linear at its end."""
    step = separable(
        hidden, outputs, kernel=3, stride=2, padding=padding, activation=nn.ReLU, norm=norm
    )
    return extra(inputs, hidden, step)
