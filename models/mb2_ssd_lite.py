"""MobileNetV2 SSDLite, 300 x 300, 3000 priors.

Paper: MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381), section 6.2.
Original code: https://github.com/qfgaohao/pytorch-ssd at 7a839cb, MIT; checkpoints of that
project load under our names, one to one.
Tensors: input (n, 3, 300, 300) float32 RGB, (pixel - 127) / 128; logits (n, 3000, classes),
offsets (n, 3000, 4).
"""

from __future__ import annotations

from torch import nn

from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._heads import lite_heads
from models._layers import RELU, RELU6, InvertedResidual, Style
from models._mobilenet_v2 import TAPPED, ExpandedTaps, backbone
from models._spec import IMAGE_300, PYTORCH_SSD, levels_300, make_spec

LEVELS = levels_300()

_EXTRAS = ((512, 0.2), (256, 0.25), (256, 0.5), (64, 0.25))
"""Channels and expansion of the stride-2 blocks after the backbone."""

_STYLES = {"relu6": (RELU6, nn.ReLU6), "relu": (RELU, nn.ReLU)}


def _build(classes: int, width: float, style: Style, in_heads: type[nn.Module]) -> ExpandedTaps:
    base, expanded = backbone(width, style=style)
    channels = [expanded[TAPPED], expanded[-1]]
    extras: list[nn.Module] = []
    for outputs, expansion in _EXTRAS:
        extras.append(InvertedResidual(channels[-1], outputs, style, stride=2, expansion=expansion))
        channels.append(outputs)
    heads = lite_heads(classes, (300, 300), LEVELS, channels, activation=in_heads)
    return ExpandedTaps(base, extras, heads, (TAPPED,))


@MODELS.register
def mb2_ssd_lite(
    labels: tuple[str, ...], *, width: float = 1.0, activation: str = "relu6"
) -> ModelSpec:
    """MobileNetV2 SSDLite.

    Args:
        labels: class names, background first.
        width: multiplies the channels of the backbone; published checkpoints have 1.0.
        activation: ``relu6``, as published, or ``relu``, whose weights can be equalised across
            layers before quantization; a checkpoint fits both, but was trained with one.

    Raises:
        BadConfig: a width outside 0.1..2, another activation, or labels that cannot be a
            detector's.
    """
    if not 0.1 <= width <= 2.0:
        raise BadConfig(f"mb2_ssd_lite got width {width}: give a number between 0.1 and 2")
    if activation not in _STYLES:
        raise BadConfig(f"mb2_ssd_lite got activation '{activation}': give relu6 or relu")
    return make_spec(
        "mb2_ssd_lite",
        labels,
        lambda: _build(len(labels), width, *_STYLES[activation]),
        image=IMAGE_300,
        levels=LEVELS,
        options={"width": float(width), "activation": activation},
        source=Source(
            paper="https://arxiv.org/abs/1801.04381", repository=PYTORCH_SSD, licence="MIT"
        ),
    )
