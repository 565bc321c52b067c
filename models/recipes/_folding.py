"""Batch norms folded into the convolutions before them, in the network itself."""

from __future__ import annotations

import torch
from torch import nn

from models.recipes._graph import layers, reader, trace, untraceable


def fold(network: nn.Module) -> int:
    """Fold every batch norm that alone reads a convolution; an identity takes its place.

    In evaluation ``BN(Wx + b) = (gW)x + g(b - mean) + beta`` with ``g = gamma / sqrt(var + eps)``
    per output channel (Jacob et al. 2018, arXiv 1712.05877, section 3.2).

    Returns:
        The number of batch norms folded.
    """
    found, folded = layers(trace(network)), 0
    for node, conv in found.items():
        after = reader(node, found)
        norm = None if after is None else found.get(after)
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue  # it uses the statistics of the batch
        assert after is not None
        conv.weight, conv.bias = torch.nn.utils.fusion.fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        network.set_submodule(str(after.target), nn.Identity())
        folded += 1
    return folded


def unfolded(network: nn.Module, folded: bool, remedy: str) -> str | None:
    """Why a recipe that works on folded weights does not apply, or None.

    Args:
        folded: a recipe before it will fold what can be.
        remedy: what to do about a batch norm that stays.
    """
    reason = untraceable(network)
    if reason is not None or folded:
        return reason
    found = layers(trace(network))
    stays = any(
        isinstance(conv, nn.Conv2d) and isinstance(found.get(reader(node, found)), nn.BatchNorm2d)  # type: ignore[arg-type]  # None is in no dict
        for node, conv in found.items()
    )
    return f"it has batch norms that exporters fold into its weights: {remedy}" if stays else None
