"""Backbones by name, for detectors that a YAML file describes (`harness.model_file`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models import _mobilenet_v1 as v1
from models import _mobilenet_v2 as v2
from models import _mobilenet_v3 as v3
from models import _squeezenet as squeezenet
from models._ssd import Ssd
from models.etinynet_ssd_lite import TAPS as ETINYNET_TAPS
from models.etinynet_ssd_lite import backbone as etinynet
from models.mb3_large_ssd_lite import ROWS as LARGE_ROWS
from models.mb3_small_ssd_lite import ROWS as SMALL_ROWS
from models.vgg16_ssd import TAPS as VGG16_TAPS
from models.vgg16_ssd import Vgg16Ssd
from models.vgg16_ssd import backbone as vgg16


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One backbone.

    Attributes:
        base: makes the layers from a width multiplier.
        taps: which layers' answers the heads sit on, as ``network`` counts them.
        network: the detector's class, ``(base, extras, heads, taps)``.
        scales: whether another width than 1 is possible.
    """

    base: Callable[[float], nn.Sequential]
    taps: tuple[int, ...]
    network: Callable[..., Ssd] = Ssd
    scales: bool = False


def _mb1(width: float) -> nn.Sequential:
    units = [(int(channels * width), stride) for channels, stride in v1.UNITS]
    return v1.backbone(int(32 * width), units)


BACKBONES: dict[str, Backbone] = {
    "etinynet": Backbone(base=lambda width: etinynet(width)[0], taps=ETINYNET_TAPS, scales=True),
    "mb1": Backbone(base=_mb1, taps=v1.TAPS, scales=True),
    "mb2": Backbone(
        base=lambda width: v2.backbone(width)[0],
        taps=(v2.TAPPED,),
        network=v2.ExpandedTaps,
        scales=True,
    ),
    "mb3_large": Backbone(base=lambda _: v3.backbone(LARGE_ROWS, 960), taps=(15, 21)),
    "mb3_small": Backbone(base=lambda _: v3.backbone(SMALL_ROWS, 576), taps=(11, 17)),
    "squeezenet1_1": Backbone(base=lambda _: squeezenet.backbone(), taps=(7, 12)),
    "vgg16": Backbone(
        base=lambda _: vgg16(),
        taps=VGG16_TAPS,
        network=lambda base, extras, heads, _: Vgg16Ssd(base, extras, heads),
    ),
}
