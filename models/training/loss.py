"""The MultiBox loss (SSD, Liu et al. 2016, section 2.2) with hard negative mining."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Loss(NamedTuple):
    """Scalars, each divided by the number of matched priors in the batch (at least 1)."""

    classes: Tensor
    boxes: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of both parts, which is minimised."""
        return self.classes + self.boxes


def hard_negatives(background_loss: Tensor, matched: Tensor, ratio: float) -> Tensor:
    """The worst background priors of each image, ``ratio`` times as many as matched ones.

    Args:
        background_loss: ``(n, priors)``: how wrong each prior is if it is background.
        matched: ``(n, priors)`` bool.

    Returns:
        ``(n, priors)`` bool. An image without objects contributes ``ratio`` priors.
    """
    wanted = (matched.sum(1, keepdim=True).clamp(min=1) * ratio).long()
    order = background_loss.masked_fill(matched, -torch.inf).argsort(1, descending=True)
    rank = torch.empty_like(order)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank.scatter_(1, order, places)
    return (rank < wanted) & ~matched


def multibox(
    logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor, *, negatives: float
) -> Loss:
    """Cross entropy over matched and mined background priors, smooth L1 over matched ones.

    Args:
        logits: ``(n, priors, classes)`` float32.
        offsets: ``(n, priors, 4)`` float32.
        labels: ``(n, priors)`` int64, 0 for background.
        targets: ``(n, priors, 4)`` float32.
        negatives: background priors per matched prior.
    """
    matched = labels > 0
    with torch.no_grad():
        background = -functional.log_softmax(logits, dim=2)[:, :, 0]
        taken = matched | hard_negatives(background, matched, negatives)
    count = matched.sum().clamp(min=1)
    classes = functional.cross_entropy(logits[taken], labels[taken], reduction="sum")
    boxes = functional.smooth_l1_loss(offsets[matched], targets[matched], reduction="sum")
    return Loss(classes / count, boxes / count)
