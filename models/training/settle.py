"""Batch norm's statistics for weights that were never run: an average of other weights.

A moving average of weights with a moving average of statistics beside it is two things that do not
belong together: after a change of the input's size, or with few steps, the network answers nonsense
although the weights are good. So the statistics of the result are counted anew over training images
(Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.records import ModelSpec
from models.training.batches import Feed, Input
from models.training.options import TrainOptions
from models.training.parts import FROZEN, part_of

BATCH = 16
LEAST_VARIANCE = 0.01
"""Of a channel, as part of its layer's median. One that is silent on all images counted (behind a
ReLU: zero) has none, and dividing by it would make the first image that wakes it a thousand times
too loud; on the images counted, nothing changes (docs/decisions/0026)."""


def settle(network: nn.Module, spec: ModelSpec, feed: Feed, options: TrainOptions) -> None:
    """Count the statistics anew over ``options.settle`` images; frozen parts keep theirs.

    The network is left in evaluation mode.
    """
    norms = [
        module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and part_of(name) not in FROZEN[options.freeze]
    ]
    network.eval()
    if not norms or not options.settle:
        return
    shown = Input((spec.image.height, spec.image.width), False, spec.priors)
    firsts = range(0, options.settle, BATCH)
    batches = (feed.batch(first, BATCH, shown).images.to(options.device) for first in firsts)
    recount(network, norms, batches)


@torch.no_grad()
def recount(network: nn.Module, norms: Sequence[_BatchNorm], batches: Iterable[Tensor]) -> None:
    """Give ``norms`` the mean of the statistics that all batches have.

    Each norm normalises by those of the batch meanwhile, so that the layers after it see what they
    will see; no variance is below `LEAST_VARIANCE`. The network, which was in evaluation mode, is
    again.
    """
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if norm.running_var is not None:
            norm.running_var.clamp_(min=LEAST_VARIANCE * float(norm.running_var.median()))
    network.eval()
