"""The ultra-light face detector with a receptive field block, 240 x 320, 4420 priors.

Paper of the block: RFB Net (Liu et al. 2018, https://arxiv.org/abs/1711.07767), figure 4.
Original code: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB at dffdddd,
MIT; its checkpoint ``version-RFB-320.pth`` loads under our names, one to one.
Tensors: input (n, 3, 240, 320) float32 RGB, (pixel - 127) / 128; logits (n, 4420, classes),
offsets (n, 4420, 4). The published classes are background and face.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.interfaces import MODELS
from harness.records import ModelSpec
from models._layers import relu
from models._mobilenet_v1 import backbone
from models._ultra_light_face import FIRST, LATER_UNITS, UNITS, make_face_spec


class Unit(nn.Module):
    """Convolution, batch norm, and ReLU unless ``linear``; padding keeps the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs, momentum=0.01)
        self.relu = None if linear else relu()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y if self.relu is None else self.relu(y)


class ReceptiveField(nn.Module):
    """Three branches that see 7, 9 and 15 pixels around, joined, plus a linear shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, middle = channels // 8, channels // 4
        wide = narrow // 2 * 3
        self.branch0 = _branch(channels, narrow, middle, dilation=2)
        self.branch1 = _branch(channels, narrow, middle, dilation=3)
        self.branch2 = _branch(channels, narrow, wide, middle, dilation=5)
        self.ConvLinear = Unit(3 * middle, channels, 1, linear=True)
        self.shortcut = Unit(channels, channels, 1, linear=True)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.branch0(x), self.branch1(x), self.branch2(x)], 1)
        y: Tensor = self.relu(self.ConvLinear(joined) + self.shortcut(x))
        return y


def _branch(inputs: int, first: int, *others: int, dilation: int) -> nn.Sequential:
    """Pointwise to ``first`` channels, 3x3 to each of ``others``, then a dilated 3x3."""
    units = [Unit(inputs, first, 1, linear=True)]
    channels = first
    for outputs in others:
        units.append(Unit(channels, outputs, 3))
        channels = outputs
    units.append(Unit(channels, channels, 3, dilation=dilation, linear=True))
    return nn.Sequential(*units)


def _base() -> nn.Sequential:
    slim = backbone(FIRST, (*UNITS, *LATER_UNITS))
    slim[len(UNITS)] = ReceptiveField(UNITS[-1][0])
    return slim


@MODELS.register
def rfb_320_face(labels: tuple[str, ...]) -> ModelSpec:
    """RFB face detector. ``labels``: class names, background first. Raises BadConfig."""
    return make_face_spec("rfb_320_face", labels, _base)
