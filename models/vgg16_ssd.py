"""VGG16 SSD, 300 x 300, 8732 priors: the detector of the SSD paper.

Paper: SSD (Liu et al. 2016, https://arxiv.org/abs/1512.02325), figure 2. Where the paper scales
the first feature map to an L2 norm per position, this code has a batch norm, and so has ours.
Original code: https://github.com/qfgaohao/pytorch-ssd at 7a839cb, MIT; its checkpoints load under
our names, one to one.
Tensors: input (n, 3, 300, 300) float32 RGB, pixel - (123, 117, 104); logits (n, 8732, classes),
offsets (n, 8732, 4).
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.interfaces import MODELS
from harness.records import ImageSpec, ModelSpec, Source
from models._heads import plain_extra, plain_heads
from models._layers import relu
from models._priors import ssd_level
from models._spec import PYTORCH_SSD, make_spec
from models._ssd import Heads, Ssd

IMAGE = ImageSpec(height=300, width=300, mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0))

LEVELS = tuple(
    ssd_level(*spec)
    for spec in (
        (38, 8, 30, 60, (2,)),
        (19, 16, 60, 111, (2, 3)),
        (10, 32, 111, 162, (2, 3)),
        (5, 64, 162, 213, (2, 3)),
        (3, 100, 213, 264, (2,)),
        (1, 300, 264, 315, (2,)),
    )
)

TAPS = (23, 35)
_CHANNELS = (512, 1024, 512, 256, 256, 256)
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions between the pools (VGG, Simonyan and Zisserman 2015, column D)."""


class Vgg16Ssd(Ssd):
    """VGG16 whose ``conv4_3``, normalised, and ``fc7`` feed the heads, with four extra maps."""

    def __init__(self, base: nn.Sequential, extras: list[nn.Module], heads: Heads) -> None:
        super().__init__(base, extras, heads, TAPS)
        self.source_layer_add_ons = nn.ModuleList([nn.BatchNorm2d(_CHANNELS[0])])

    def backbone(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        (first, *others), end = super().backbone(x)
        return [self.source_layer_add_ons[0](first), *others], end


def backbone() -> nn.Sequential:
    """VGG16, its classifier's first two layers made convolutions."""
    layers: list[nn.Module] = []
    channels = 3
    for number, stage in enumerate(_STAGES):
        if number:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=number == 3))
        for outputs in stage:
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), relu()]
            channels = outputs
    layers.append(nn.MaxPool2d(3, 1, padding=1))
    layers += [nn.Conv2d(channels, 1024, 3, padding=6, dilation=6), relu()]
    layers += [nn.Conv2d(1024, 1024, 1), relu()]
    return nn.Sequential(*layers)


def _build(classes: int) -> Vgg16Ssd:
    extras: list[nn.Module] = [
        plain_extra(1024, 256, 512),
        plain_extra(512, 128, 256),
        plain_extra(256, 128, 256, stride=1, padding=0),
        plain_extra(256, 128, 256, stride=1, padding=0),
    ]
    return Vgg16Ssd(backbone(), extras, plain_heads(classes, (300, 300), LEVELS, _CHANNELS))


@MODELS.register
def vgg16_ssd(labels: tuple[str, ...]) -> ModelSpec:
    """VGG16 SSD. ``labels``: class names, background first. Raises BadConfig."""
    return make_spec(
        "vgg16_ssd",
        labels,
        lambda: _build(len(labels)),
        image=IMAGE,
        levels=LEVELS,
        source=Source(
            paper="https://arxiv.org/abs/1512.02325", repository=PYTORCH_SSD, licence="MIT"
        ),
    )
