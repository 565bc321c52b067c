"""MobileNetV1 SSD, 300 x 300, 3000 priors.

Paper: MobileNets (Howard et al. 2017, https://arxiv.org/abs/1704.04861), section 4.6.
Original code: https://github.com/qfgaohao/pytorch-ssd at 7a839cb, MIT; its checkpoints load under
our names, one to one.
Tensors: input (n, 3, 300, 300) float32 RGB, (pixel - 127) / 128; logits (n, 3000, classes),
offsets (n, 3000, 4).
"""

from __future__ import annotations

from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._heads import plain_extra, plain_heads
from models._mobilenet_v1 import CHANNELS, TAPS, UNITS, backbone
from models._spec import IMAGE_300, PYTORCH_SSD, levels_300, make_spec
from models._ssd import Ssd

LEVELS = levels_300()


def _build(classes: int) -> Ssd:
    extras = [
        plain_extra(1024, 256, 512),
        plain_extra(512, 128, 256),
        plain_extra(256, 128, 256),
        plain_extra(256, 128, 256),
    ]
    heads = plain_heads(classes, (300, 300), LEVELS, CHANNELS)
    return Ssd(backbone(32, UNITS), extras, heads, TAPS)


@MODELS.register
def mb1_ssd(labels: tuple[str, ...]) -> ModelSpec:
    """MobileNetV1 SSD. ``labels``: class names, background first. Raises BadConfig."""
    return make_spec(
        "mb1_ssd",
        labels,
        lambda: _build(len(labels)),
        image=IMAGE_300,
        levels=LEVELS,
        source=Source(
            paper="https://arxiv.org/abs/1704.04861", repository=PYTORCH_SSD, licence="MIT"
        ),
    )
