"""SqueezeNet 1.1 SSDLite, 256 x 256, 5694 priors, for microcontrollers.

Paper: SqueezeNet (Iandola et al. 2016, https://arxiv.org/abs/1602.07360).
Original code: https://github.com/Chadlikouider/TinyML_Det at 911ecfc, no licence given: this is
our own writing of the architecture; its state dicts load under our names, one to one.
Tensors: input (n, 3, 256, 256) float32 RGB with ImageNet's mean and standard deviation; logits
(n, 5694, classes), offsets (n, 5694, 4).
"""

from __future__ import annotations

from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._heads import lite_extra, lite_heads
from models._spec import IMAGE_256, TINYML_DET, levels_256, make_spec
from models._squeezenet import CHANNELS, backbone
from models._ssd import Ssd

LEVELS = levels_256((31, 9), (15, 18))

_TAPS = (7, 12)


def _build(classes: int) -> Ssd:
    extras = [
        lite_extra(CHANNELS, 256, 512),
        lite_extra(512, 128, 256),
        lite_extra(256, 128, 256),
        lite_extra(256, 128, 256),
    ]
    channels = (256, CHANNELS, 512, 256, 256, 256)
    heads = lite_heads(classes, (256, 256), LEVELS, channels, norm=False)
    return Ssd(backbone(), extras, heads, _TAPS)


@MODELS.register
def squeezenet1_1_ssd_lite(labels: tuple[str, ...]) -> ModelSpec:
    """SqueezeNet 1.1 SSDLite. ``labels``: class names, background first. Raises BadConfig."""
    return make_spec(
        "squeezenet1_1_ssd_lite",
        labels,
        lambda: _build(len(labels)),
        image=IMAGE_256,
        levels=LEVELS,
        source=Source(
            paper="https://arxiv.org/abs/1602.07360", repository=TINYML_DET, licence="none given"
        ),
    )
