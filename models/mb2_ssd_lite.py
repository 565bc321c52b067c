"""MobileNetV2 SSDLite, 300 x 300, 3000 priors.

Paper: MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381), section 6.2.
Original code: https://github.com/qfgaohao/pytorch-ssd at 7a839cb, MIT; checkpoints of that
project load under our names, one to one.
Tensors: input (n, 3, 300, 300) float32 RGB, (pixel - 127) / 128; logits (n, 3000, classes),
offsets (n, 3000, 4).
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import Decoding, ImageSpec, ModelSpec, Source
from models._layers import InvertedResidual, conv_bn_relu6, separable
from models._priors import Level, make_priors
from models._ssd import Heads, Ssd, check_labels

SIZE = 300
TAPPED = 14
"""Block of ``base_net`` whose expanded activations are the first feature map."""

_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, repeats and first stride of the backbone's stages (paper, table 2)."""

_EXTRAS = ((512, 0.2), (256, 0.25), (256, 0.5), (64, 0.25))
"""Channels and expansion of the stride-2 blocks after the backbone."""

LEVELS = tuple(
    Level(cells=cells, stride=stride, smallest=low, largest=high, ratios=(2, 3))
    for cells, stride, low, high in (
        (19, 16, 60, 105),
        (10, 32, 105, 150),
        (5, 64, 150, 195),
        (3, 100, 195, 240),
        (2, 150, 240, 285),
        (1, 300, 285, 330),
    )
)


class Mb2SsdLite(Ssd):
    """MobileNetV2 whose expanded block 14 and last layer feed the heads, with four extra maps."""

    def sources(self, x: Tensor) -> list[Tensor]:
        tap = x
        for position, block in enumerate(self.base_net):
            if position == TAPPED:
                assert isinstance(block, InvertedResidual)
                tap = block.expand(x)
                x = block.project(tap)
            else:
                x = block(x)
        return [tap, x]


def _backbone(width: float) -> tuple[nn.Sequential, list[int]]:
    """The backbone and the channels of its two feature maps."""
    channels = int(32 * width)
    layers: list[nn.Module] = [conv_bn_relu6(3, channels, kernel=3, stride=2)]
    tap = 0
    for expansion, base, repeats, first_stride in _BLOCKS:
        outputs = int(base * width)
        for repeat in range(repeats):
            if len(layers) == TAPPED:
                tap = channels * expansion
            stride = first_stride if repeat == 0 else 1
            layers.append(InvertedResidual(channels, outputs, stride=stride, expansion=expansion))
            channels = outputs
    last = int(1280 * max(width, 1.0))
    layers.append(conv_bn_relu6(channels, last, kernel=1, stride=1))
    return nn.Sequential(*layers), [tap, last]


def _build(classes: int, width: float) -> Mb2SsdLite:
    base, channels = _backbone(width)
    extras: list[nn.Module] = []
    for outputs, expansion in _EXTRAS:
        extras.append(InvertedResidual(channels[-1], outputs, stride=2, expansion=expansion))
        channels.append(outputs)

    def heads(values: int) -> list[nn.Module]:
        lite = [
            separable(c, values * len(level.shapes), kernel=3, stride=1, activation=nn.ReLU6)
            for c, level in zip(channels[:-1], LEVELS, strict=False)
        ]
        return [*lite, nn.Conv2d(channels[-1], values * len(LEVELS[-1].shapes), 1)]

    network = Mb2SsdLite(
        base,
        extras,
        Heads(
            classes=classes,
            size=SIZE,
            levels=LEVELS,
            classification=heads(classes),
            regression=heads(4),
        ),
    )
    return network.eval()


@MODELS.register
def mb2_ssd_lite(labels: tuple[str, ...], *, width: float = 1.0) -> ModelSpec:
    """MobileNetV2 SSDLite.

    Args:
        labels: class names, background first.
        width: multiplies the channels of the backbone; published checkpoints have 1.0.

    Raises:
        BadConfig: a width outside 0.1..2, or labels that cannot be a detector's.
    """
    check_labels("mb2_ssd_lite", labels)
    if not 0.1 <= width <= 2.0:
        raise BadConfig(f"mb2_ssd_lite got width {width}: give a number between 0.1 and 2")
    return ModelSpec(
        name="mb2_ssd_lite",
        options={"width": float(width)},
        build=lambda: _build(len(labels), width),
        image=ImageSpec(
            height=SIZE, width=SIZE, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)
        ),
        priors=make_priors(SIZE, LEVELS),
        decoding=Decoding(),
        labels=tuple(labels),
        source=Source(
            paper="https://arxiv.org/abs/1801.04381",
            repository="https://github.com/qfgaohao/pytorch-ssd",
            licence="MIT",
        ),
    )
