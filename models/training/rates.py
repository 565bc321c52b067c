"""The learning rate over a training."""

from __future__ import annotations

import math

from models.training.options import TrainOptions


def learning_rate(peak: float, done: float, *, warmup: float, final: float) -> float:
    """Linear warm-up to ``peak``, then half a cosine down to ``final`` times the peak.

    Args:
        done: fraction of the training that is behind, 0..1.
        warmup: fraction of the training that the warm-up takes.
    """
    if done < warmup:
        return peak * max(done / warmup, 0.01)
    rest = (done - warmup) / (1 - warmup)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * rest)) / 2)


def factor(options: TrainOptions, done: float, shown: int) -> float:
    """What every peak learning rate is multiplied with, when ``shown`` images are behind."""
    if options.schedule == "cosine":
        return learning_rate(1.0, done, warmup=options.warmup, final=options.final)
    falls = sum(shown >= milestone for milestone in options.milestones)
    # a final of 1 leaves the warm-up alone
    warm = learning_rate(1.0, done, warmup=options.warmup, final=1.0)
    return warm * options.gamma**falls
