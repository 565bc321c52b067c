"""The ultra-light face detectors: a slim MobileNetV1, 240 x 320, priors by least boxes.

Original code: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB at dffdddd,
MIT, (c) 2019 linzai; its checkpoints load under our names, one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from harness.policies import policy
from harness.records import ImageSpec, ModelSpec, Source
from models._heads import extra, lite_heads
from models._layers import separable
from models._priors import Level
from models._spec import make_spec
from models._ssd import Ssd

IMAGE = ImageSpec(height=240, width=320, mean=(127.0,) * 3, std=(128.0,) * 3)

LEVELS = tuple(
    Level(cells=cells, shapes=tuple((side, side) for side in sides))
    for cells, sides in (
        ((30, 40), (10, 16, 24)),
        ((15, 20), (32, 48)),
        ((8, 10), (64, 96)),
        ((4, 5), (128, 192, 256)),
    )
)
"""Squares of fixed sides in pixels (``min_boxes``) at the centres of evenly divided cells."""

FIRST = 16
"""Channels of the first convolution."""

UNITS = ((32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1))
"""Channels and stride of the units before the first feature map."""

LATER_UNITS = ((128, 2), (128, 1), (128, 1), (256, 2), (256, 1))

_TAPS = (8, 11, 13)
_CHANNELS = (64, 128, 256, 256)


def build(classes: int, base: nn.Sequential) -> Ssd:
    """The detector around ``base``, with one extra map."""
    step = separable(64, 256, kernel=3, stride=2, activation=nn.ReLU, norm=False)
    heads = lite_heads(
        classes, (IMAGE.height, IMAGE.width), LEVELS, _CHANNELS, norm=False, last_kernel=3
    )
    return Ssd(base, [extra(256, 64, step, nn.ReLU())], heads, _TAPS)


def make_face_spec(
    name: str, labels: Sequence[str], base: Callable[[], nn.Sequential]
) -> ModelSpec:
    """The spec of the detector around ``base()``.

    Its decoding is the original's (`harness.policies`): a softmax over background and face, hard
    suppression at 0.3.
    """
    return make_spec(
        name,
        labels,
        lambda: build(len(labels), base()),
        image=IMAGE,
        levels=LEVELS,
        decoding=policy("ultra-light-face"),
        source=Source(
            paper="none",
            repository="https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
            licence="MIT",
        ),
    )
