"""The MultiBox loss (SSD, Liu et al. 2016, section 2.2) with hard negative mining."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Answers(NamedTuple):
    """What a detector says: ``logits`` (n, priors, classes), ``offsets`` (n, priors, 4) float32."""

    logits: Tensor
    offsets: Tensor


class Targets(NamedTuple):
    """What it shall say: ``labels`` (n, priors) int64, 0 background; ``offsets`` (n, priors, 4)."""

    labels: Tensor
    offsets: Tensor


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


@torch.no_grad()
def taken(logits: Tensor, labels: Tensor, negatives: float, *, sigmoid: bool) -> Tensor:
    """``(n, priors)`` bool: the priors whose classes count, matched ones and mined background."""
    if sigmoid:
        background = _one_hot_loss(logits, torch.zeros_like(labels)).sum(2)
    else:
        background = -functional.log_softmax(logits, dim=2)[:, :, 0]
    matched = labels > 0
    return matched | hard_negatives(background, matched, negatives)


def multibox(said: Answers, told: Targets, *, negatives: float, sigmoid: bool = False) -> Loss:
    """Class loss over matched and mined background priors, smooth L1 over matched ones.

    Args:
        negatives: background priors per matched prior.
        sigmoid: scores are sigmoids, one loss for each class; else one cross entropy.
    """
    matched = told.labels > 0
    mask = taken(said.logits, told.labels, negatives, sigmoid=sigmoid)
    logits, labels = said.logits[mask], told.labels[mask]
    if sigmoid:
        classes = _one_hot_loss(logits, labels).sum()
    else:
        classes = functional.cross_entropy(logits, labels, reduction="sum")
    boxes = functional.smooth_l1_loss(said.offsets[matched], told.offsets[matched], reduction="sum")
    count = matched.sum().clamp(min=1)
    return Loss(classes / count, boxes / count)


def _one_hot_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of every class, the background among them."""
    wanted = functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
