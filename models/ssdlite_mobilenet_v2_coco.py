"""TensorFlow's ssdlite_mobilenet_v2_coco_2018_05_09, 300 x 300, 1917 priors.

Paper: MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381), section 6.2.
Original code: https://github.com/tensorflow/models (research/object_detection), Apache-2.0. Its
frozen graph, saved model or checkpoint is read by `models._tf_import`: each of its 404 variables
has one place here. Padding is TensorFlow's SAME; scores are sigmoids; the priors are not cut to
the image; its box scales 10, 10, 5, 5 are the variances 0.1, 0.2.
Tensors: input (n, 3, 300, 300) float32 RGB, pixel / 127.5 - 1; logits (n, 1917, classes), offsets
(n, 1917, 4) as (x, y, width, height), where the original has (y, x, height, width).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import sqrt

from torch import nn

from harness.interfaces import MODELS
from harness.policies import policy
from harness.records import ImageSpec, ModelSpec, Source
from models._layers import Style, conv_bn, depthwise_unit, relu6
from models._mobilenet_v2 import BLOCKS, TAPPED, ExpandedTaps, backbone
from models._priors import Level
from models._same_padding import SameConv2d
from models._spec import make_spec
from models._ssd import Heads
from models._tf_import import Scope

SIZE = 300
IMAGE = ImageSpec(height=SIZE, width=SIZE, mean=(127.5,) * 3, std=(127.5,) * 3)
TENSORFLOW = Style(activation=relu6, convolution=SameConv2d, epsilon=0.001)

_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
"""Channels of the pointwise convolution and of the map of the extra layers."""

_CHANNELS = (576, 1280, 512, 256, 256, 128)
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
"""Width over height, in the order of the heads' channels. 0.3333 is the original's third."""


def _levels() -> tuple[Level, ...]:
    """The original's ``ssd_anchor_generator``: scales evenly from 0.2 to 0.95, then 1."""
    scales = [0.2 + 0.15 * step for step in range(6)] + [1.0]
    lowest = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
    each = [lowest]
    for scale, following in pairwise(scales[1:]):
        each.append([*((scale, ratio) for ratio in _RATIOS), (sqrt(scale * following), 1.0)])
    return tuple(
        Level(
            cells=(cells, cells),
            shapes=tuple((SIZE * s * sqrt(ratio), SIZE * s / sqrt(ratio)) for s, ratio in shapes),
        )
        for cells, shapes in zip((19, 10, 5, 3, 2, 1), each, strict=True)
    )


LEVELS = _levels()


class TensorFlowSsdLite(ExpandedTaps):
    """MobileNetV2 whose expanded block 14 and last layer feed the heads, with four extra maps."""

    def tensorflow_scopes(self) -> Iterator[Scope]:
        """Where each convolution's variables are in the original."""
        features = "FeatureExtractor/MobilenetV2"
        yield Scope(f"{features}/Conv", "base_net.0.0", norm="base_net.0.1")
        for block in range(sum(repeats for _, _, repeats, _ in BLOCKS)):
            name = f"{features}/expanded_conv" + (f"_{block}" if block else "")
            at = f"base_net.{block + 1}.conv"
            first = 3 if block else 0  # the first block expands nothing
            if block:
                yield Scope(f"{name}/expand", f"{at}.0", norm=f"{at}.1")
            yield Scope(f"{name}/depthwise", f"{at}.{first}", norm=f"{at}.{first + 1}")
            yield Scope(f"{name}/project", f"{at}.{first + 3}", norm=f"{at}.{first + 4}")
        last = len(self.base_net) - 1
        yield Scope(f"{features}/Conv_1", f"base_net.{last}.0", norm=f"base_net.{last}.1")
        for number, (hidden, outputs) in enumerate(_EXTRAS):
            narrow = f"{features}/layer_19_1_Conv2d_{number + 2}_1x1_{hidden}"
            wide = f"{features}/layer_19_2_Conv2d_{number + 2}_3x3_s2_{outputs}"
            at = f"extras.{number}"
            yield Scope(narrow, f"{at}.0.0", norm=f"{at}.0.1")
            yield Scope(f"{wide}_depthwise", f"{at}.1.0", norm=f"{at}.1.1")
            yield Scope(wide, f"{at}.1.3", norm=f"{at}.1.4")
        for number in range(len(_CHANNELS)):
            for kind, heads in (
                ("Class", "classification_headers"),
                ("BoxEncoding", "regression_headers"),
            ):
                name, at = f"BoxPredictor_{number}/{kind}Predictor", f"{heads}.{number}"
                yield Scope(f"{name}_depthwise", f"{at}.0", norm=f"{at}.1")
                yield Scope(name, f"{at}.3", boxes=kind == "BoxEncoding")


def _build(classes: int) -> TensorFlowSsdLite:
    base, _ = backbone(1.0, style=TENSORFLOW)
    extras = [
        nn.Sequential(
            conv_bn(inputs, hidden, TENSORFLOW, kernel=1),
            depthwise_unit(hidden, outputs, TENSORFLOW, stride=2),
        )
        for inputs, (hidden, outputs) in zip(_CHANNELS[1:], _EXTRAS, strict=False)
    ]

    def heads(values: int) -> list[nn.Module]:
        return [
            nn.Sequential(
                *conv_bn(channels, channels, TENSORFLOW, kernel=3, groups=channels),
                nn.Conv2d(channels, values * len(level.shapes), 1),
            )
            for channels, level in zip(_CHANNELS, LEVELS, strict=True)
        ]

    both = Heads(
        classes=classes,
        size=(SIZE, SIZE),
        levels=LEVELS,
        classification=heads(classes),
        regression=heads(4),
        clamp=False,
    )
    return TensorFlowSsdLite(base, extras, both, (TAPPED,))


@MODELS.register
def ssdlite_mobilenet_v2_coco(labels: tuple[str, ...]) -> ModelSpec:
    """TensorFlow's SSDLite. ``labels``: class names, background first. Raises BadConfig."""
    return make_spec(
        "ssdlite_mobilenet_v2_coco",
        labels,
        lambda: _build(len(labels)),
        image=IMAGE,
        levels=LEVELS,
        decoding=policy("tf-object-detection"),
        clamp=False,
        source=Source(
            paper="https://arxiv.org/abs/1801.04381",
            repository="https://github.com/tensorflow/models",
            licence="Apache-2.0",
        ),
    )
