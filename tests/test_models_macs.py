"""Multiply-accumulates of the backbones, against the figures that their authors publish.

TinyML_Det's figures equal the convolutions plus four operations for every element that a batch norm
answers; the convolutions alone, which torch counts, are what ours report.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.interfaces import MODELS
from harness.records import Scalar

PUBLISHED: list[tuple[str, dict[str, Scalar], float]] = [
    ("etinynet_ssd_lite", {"width": 1.0}, 182.673),
    ("etinynet_ssd_lite", {"width": 0.75}, 112.626),
    ("etinynet_ssd_lite", {"width": 0.5}, 58.831),
    ("etinynet_ssd_lite", {"width": 0.35}, 33.669),
    ("squeezenet1_1_ssd_lite", {}, 346.897),
]


@pytest.mark.parametrize(("model", "options", "millions"), PUBLISHED)
def test_backbones_cost_what_is_published(
    model: str, options: dict[str, Scalar], millions: float
) -> None:
    base = MODELS.get(model)(("background", "face"), **options).build().base_net
    normed: list[int] = []
    for layer in base.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, __, answer: normed.append(answer.numel()))
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        base(torch.zeros(1, 3, 256, 256))
    assert (counted.get_total_flops() / 2 + 4 * sum(normed)) / 1e6 == pytest.approx(
        millions, abs=5e-4
    )
