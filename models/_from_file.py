"""A detector from the description in a YAML file: backbone, extra maps, heads, priors.

The channels and cells of the feature maps are those that the network itself answers, so that a
description holds no number twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.errors import BadConfig
from harness.model_file import ModelFile
from harness.policies import policy
from harness.records import ImageSpec, ModelSpec, Source
from models._backbones import BACKBONES, Backbone
from models._heads import lite_extra, lite_heads, plain_extra, plain_heads
from models._priors import Level, Size, ssd_level
from models._spec import make_spec
from models._ssd import Heads, Ssd


def make(described: ModelFile, labels: tuple[str, ...], where: str) -> ModelSpec:
    """The spec of the detector described.

    Raises:
        BadConfig: a width that the backbone does not have, an image too small for it, another
            number of priors than feature maps, other labels than described.
    """
    found = BACKBONES[described.backbone]
    if described.width != 1.0 and not found.scales:
        raise BadConfig(f"{where}: backbone {described.backbone} has no width but 1.0")
    if described.labels is not None and described.labels != labels:
        raise BadConfig(
            f"{where} names the classes {', '.join(described.labels)}, the weights or data know"
            f" {', '.join(labels)}: they must be the same, in the same order"
        )
    size = described.height_width
    maps = _maps(described, found, size, where)
    levels = _levels(described, maps, where)
    channels = [one.shape[1] for one in maps]
    rules = dict(described.decoding)
    return make_spec(
        described.name,
        labels,
        lambda: _build(described, found, len(labels), levels, channels),
        image=ImageSpec(
            height=size[0],
            width=size[1],
            mean=described.mean,
            std=described.std,
            channel_order=described.channel_order,
        ),
        levels=levels,
        source=Source(paper=described.source, repository="", licence=""),
        decoding=policy(str(rules.pop("policy", "detbench")), **rules),
    )


def _build(
    described: ModelFile,
    found: Backbone,
    classes: int,
    levels: tuple[Level, ...],
    channels: Sequence[int],
) -> Ssd:
    lite = described.heads == "lite"
    heads = (lite_heads if lite else plain_heads)(classes, described.height_width, levels, channels)
    end = channels[len(channels) - len(described.extras) - 1]
    return found.network(found.base(described.width), _extras(described, end), heads, found.taps)


def _extras(described: ModelFile, channels: int) -> list[nn.Module]:
    """Extra maps of stride 2 after a map of ``channels``."""
    extra = lite_extra if described.heads == "lite" else plain_extra
    found: list[nn.Module] = []
    for outputs in described.extras:
        found.append(extra(channels, max(outputs // 2, 1), outputs))
        channels = outputs
    return found


@torch.no_grad()
def _maps(described: ModelFile, found: Backbone, size: Size, where: str) -> list[Tensor]:
    """All feature maps of a blank image, by a network without heads."""
    bare = Heads(classes=2, size=size, levels=(), classification=[], regression=[])
    try:
        network = found.network(found.base(described.width), [], bare, found.taps).eval()
        maps, x = network.backbone(torch.zeros(1, 3, *size))
        for extra in _extras(described, x.shape[1]):
            x = extra.eval()(x)
            maps.append(x)
    except RuntimeError as error:  # torch: an image or a width that leaves a layer nothing
        reason = str(error).strip().splitlines()[0]
        raise BadConfig(
            f"{where}: {described.backbone} of width {described.width} cannot take an image of"
            f" {size[0]} x {size[1]} ({reason}): give a larger size or width, or fewer extras"
        ) from error
    return maps


def _levels(described: ModelFile, maps: Sequence[Tensor], where: str) -> tuple[Level, ...]:
    if len(described.priors) != len(maps):
        sides = ", ".join(f"{one.shape[2]} x {one.shape[3]}" for one in maps)
        raise BadConfig(
            f"{where} gives {len(described.priors)} priors, the network has {len(maps)} feature"
            f" maps ({sides} cells): give one entry a map, largest first"
        )
    return tuple(
        replace(
            ssd_level(1, 1.0, rule.smallest, rule.largest, rule.ratios),
            cells=(one.shape[2], one.shape[3]),
            stride=rule.stride,
        )
        for rule, one in zip(described.priors, maps, strict=True)
    )
