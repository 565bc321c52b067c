"""The learning rate over a training."""

from __future__ import annotations

import math


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
