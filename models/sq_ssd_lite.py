"""SqueezeNet 1.1 SSDLite, 300 x 300, 2568 priors.

Paper: SqueezeNet (Iandola et al. 2016, https://arxiv.org/abs/1602.07360).
Original code: https://github.com/qfgaohao/pytorch-ssd at 7a839cb, MIT; its checkpoints load under
our names, one to one.
Tensors: input (n, 3, 300, 300) float32 RGB, (pixel - 127) / 128; logits (n, 2568, classes),
offsets (n, 2568, 4).
"""

from __future__ import annotations

from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._heads import lite_extra, lite_heads
from models._spec import IMAGE_300, PYTORCH_SSD, levels_300, make_spec
from models._squeezenet import CHANNELS, backbone
from models._ssd import Ssd

LEVELS = levels_300((17, 10, 5, 3, 2, 1))

_TAPS = (12,)


def _build(classes: int) -> Ssd:
    extras = [
        lite_extra(CHANNELS, 256, 512, padding=2),
        lite_extra(512, 256, 512),
        lite_extra(512, 128, 256),
        lite_extra(256, 128, 256),
        lite_extra(256, 128, 256),
    ]
    channels = (CHANNELS, 512, 512, 256, 256, 256)
    heads = lite_heads(classes, (300, 300), LEVELS, channels, norm=False)
    return Ssd(backbone(), extras, heads, _TAPS)


@MODELS.register
def sq_ssd_lite(labels: tuple[str, ...]) -> ModelSpec:
    """SqueezeNet 1.1 SSDLite. ``labels``: class names, background first. Raises BadConfig."""
    return make_spec(
        "sq_ssd_lite",
        labels,
        lambda: _build(len(labels)),
        image=IMAGE_300,
        levels=LEVELS,
        source=Source(
            paper="https://arxiv.org/abs/1602.07360", repository=PYTORCH_SSD, licence="MIT"
        ),
    )
