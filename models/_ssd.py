"""The single-shot detector around a backbone (SSD, Liu et al. 2016).

Class and box heads sit on several feature maps; their outputs are flattened in the order of the
priors and joined. The network is pure: no resizing, no softmax, no decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models._priors import Level, Size, make_priors, rescale


@dataclass(frozen=True, kw_only=True)
class Heads:
    """One class head and one box head per feature map, and the priors they predict for.

    ``size`` is the input's height and width, ``clamp`` whether priors are cut to the image.
    """

    classes: int
    size: Size
    levels: tuple[Level, ...]
    classification: Sequence[nn.Module]
    regression: Sequence[nn.Module]
    clamp: bool = True


class Ssd(nn.Module):
    """``(n, 3, h, w) float32 -> logits (n, priors, classes), offsets (n, priors, 4)``, both raw.

    The member names are those of the published checkpoints. Subclasses whose feature maps are not
    simply what some layers of ``base_net`` answer say in `backbone` how they arise.
    """

    def __init__(
        self,
        base: nn.Sequential,
        extras: Sequence[nn.Module],
        heads: Heads,
        taps: Sequence[int] = (),
    ) -> None:
        """``taps``: number of layers of ``base`` before each of its feature maps."""
        super().__init__()
        self.classes, self.size, self.levels = heads.classes, heads.size, heads.levels
        self.clamp, self.taps = heads.clamp, tuple(taps)
        self.base_net = base
        self.extras = nn.ModuleList(extras)
        self.classification_headers = nn.ModuleList(heads.classification)
        self.regression_headers = nn.ModuleList(heads.regression)
        initialise(self)

    def backbone(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps of the backbone, largest first, and what the extra layers go on from."""
        found = []
        for position, layer in enumerate(self.base_net, start=1):
            x = layer(x)
            if position in self.taps:
                found.append(x)
        return found, x

    def maps(self, x: Tensor) -> list[Tensor]:
        """All feature maps that heads sit on, largest first."""
        found, x = self.backbone(x)
        for extra in self.extras:
            x = extra(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = [], []
        heads = zip(self.maps(x), self.classification_headers, self.regression_headers, strict=True)
        for feature, classify, regress in heads:
            logits.append(_per_prior(classify(feature), self.classes))
            offsets.append(_per_prior(regress(feature), 4))
        return torch.cat(logits, 1), torch.cat(offsets, 1)

    @torch.no_grad()
    def priors_at(self, size: Size, *, close_up: bool = False) -> NDArray[np.float32]:
        """Priors for an input of another size, as multi-size training needs them.

        The same boxes relative to the image, or for a close-up the same boxes in pixels.

        Returns:
            ``(priors, 4)`` float32 ``(cx, cy, w, h)`` relative to the input.
        """
        training = self.training
        self.eval()
        parameter = next(self.parameters())
        blank = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
        cells = [(feature.shape[2], feature.shape[3]) for feature in self.maps(blank)]
        self.train(training)
        if close_up:
            same = zip(self.levels, cells, strict=True)
            levels = tuple(replace(level, cells=count) for level, count in same)
        else:
            levels = rescale(self.levels, self.size, size, cells)
        return make_priors(size, levels, clamp=self.clamp)


def _per_prior(x: Tensor, values: int) -> Tensor:
    """``(n, shapes * values, h, w)`` to ``(n, h * w * shapes, values)``."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


def initialise(network: Ssd) -> None:
    """Random weights to train from: He et al. 2015 for convolutions, background-heavy class bias.

    The bias makes every prior start at 99 % background (Lin et al. 2017, section 3.3), which
    keeps the first steps from being spent on unlearning thousands of false objects.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    others = max(network.classes - 1, 1)
    for head in network.classification_headers:
        last = head[-1] if isinstance(head, nn.Sequential) else head
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.normal_(last.weight, std=0.01)
        with torch.no_grad():
            last.bias.view(-1, network.classes)[:, 0] = log(0.99 / (0.01 / others))
