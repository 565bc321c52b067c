"""MobileNetV3-Large SSDLite, 300 x 300, 3000 priors.

Paper: MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244), section 6.2.
Original code: https://github.com/qfgaohao/pytorch-ssd at 7a839cb, MIT; its checkpoints load under
our names, one to one.
Tensors: input (n, 3, 300, 300) float32 RGB, (pixel - 127) / 128; logits (n, 3000, classes),
offsets (n, 3000, 4).
"""

from __future__ import annotations

from torch import nn

from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._layers import relu
from models._mobilenet_v3 import LEVELS, Row, build
from models._spec import IMAGE_300, PYTORCH_SSD, make_spec

ROWS = (
    Row(3, 16, 16, False, relu, 1),
    Row(3, 64, 24, False, relu, 2),
    Row(3, 72, 24, False, relu, 1),
    Row(5, 72, 40, True, relu, 2),
    Row(5, 120, 40, True, relu, 1),
    Row(5, 120, 40, True, relu, 1),
    Row(3, 240, 80, False, nn.Hardswish, 2),
    Row(3, 200, 80, False, nn.Hardswish, 1),
    Row(3, 184, 80, False, nn.Hardswish, 1),
    Row(3, 184, 80, False, nn.Hardswish, 1),
    Row(3, 480, 112, True, nn.Hardswish, 1),
    Row(3, 672, 112, True, nn.Hardswish, 1),
    Row(5, 672, 160, True, nn.Hardswish, 1),
    Row(5, 672, 160, True, nn.Hardswish, 2),
    Row(5, 960, 160, True, nn.Hardswish, 1),
)
"""Kernel, expanded channels, channels, squeeze-and-excite, activation, stride of each block."""


@MODELS.register
def mb3_large_ssd_lite(labels: tuple[str, ...]) -> ModelSpec:
    """MobileNetV3-Large SSDLite. ``labels``: class names, background first. Raises BadConfig."""
    return make_spec(
        "mb3_large_ssd_lite",
        labels,
        lambda: build(len(labels), ROWS, tapped=12, last=960),
        image=IMAGE_300,
        levels=LEVELS,
        source=Source(
            paper="https://arxiv.org/abs/1905.02244", repository=PYTORCH_SSD, licence="MIT"
        ),
    )
