"""MobileNetV2 SSDLite, 256 x 256, 6132 priors, narrow, for microcontrollers.

Paper: MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381), section 6.2.
The baseline that TinyML_Det (https://github.com/Chadlikouider/TinyML_Det at 911ecfc) compares its
EtinyNet with. Its own definition of that baseline is not known to us, so the composition is ours
and no published checkpoint loads: expanded activations at strides 8 and 16, the last layer at 32,
three extra maps, and EtinyNet's priors. Channels are multiples of 8, as in the paper's code.
Tensors: input (n, 3, 256, 256) float32 RGB with ImageNet's mean and standard deviation; logits
(n, 6132, classes), offsets (n, 6132, 4).
"""

from __future__ import annotations

from torch import nn

from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._heads import lite_heads
from models._layers import InvertedResidual
from models._mobilenet_v2 import TAPPED, ExpandedTaps, backbone, by_eights
from models._spec import IMAGE_256, TINYML_DET, levels_256, make_spec

LEVELS = levels_256((32, 8), (16, 16))

_TAPS = (7, TAPPED)
_EXTRAS = ((256, 0.2), (256, 0.25), (128, 0.25))
"""Channels and expansion of the stride-2 blocks after the backbone."""


def _build(classes: int, width: float) -> ExpandedTaps:
    base, expanded = backbone(width, rounded=by_eights)
    channels = [expanded[tap] for tap in (*_TAPS, -1)]
    extras: list[nn.Module] = []
    for outputs, expansion in _EXTRAS:
        extras.append(InvertedResidual(channels[-1], outputs, stride=2, expansion=expansion))
        channels.append(outputs)
    heads = lite_heads(classes, (256, 256), LEVELS, channels, activation=nn.ReLU6)
    return ExpandedTaps(base, extras, heads, _TAPS)


@MODELS.register
def mb2_ssd_lite_256(labels: tuple[str, ...], *, width: float = 0.35) -> ModelSpec:
    """MobileNetV2 SSDLite for small devices.

    Args:
        labels: class names, background first.
        width: multiplies the channels of the backbone.

    Raises:
        BadConfig: a width outside 0.1..2, or labels that cannot be a detector's.
    """
    if not 0.1 <= width <= 2.0:
        raise BadConfig(f"mb2_ssd_lite_256 got width {width}: give a number between 0.1 and 2")
    return make_spec(
        "mb2_ssd_lite_256",
        labels,
        lambda: _build(len(labels), width),
        image=IMAGE_256,
        levels=LEVELS,
        options={"width": float(width)},
        source=Source(
            paper="https://arxiv.org/abs/1801.04381", repository=TINYML_DET, licence="none given"
        ),
    )
