"""Time by operator in PyTorch, from ``torch.profiler``, without what an operator calls itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.extras import require
from harness.interfaces import Operator

LEAST_SHARE = 0.001
"""Operators below this share of the whole are helpers of Python: left out."""


def profile(run: Callable[[Any], object], images: Sequence[Any]) -> list[Operator]:
    """Run ``run`` over ``images``, each in a profile of its own, after one call to warm up."""
    profiler = require("torch.profiler", extra="torch")
    run(images[0])
    found: dict[str, list[float]] = {}
    for number, image in enumerate(images):
        with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as seen:
            run(image)
        for average in seen.key_averages():
            times = found.setdefault(average.key, [0.0] * len(images))
            times[number] += 1e3 * float(average.self_cpu_time_total)
    total = sum(sum(times) for times in found.values())
    return [
        Operator(kind, kind, tuple(times))
        for kind, times in found.items()
        if sum(times) >= LEAST_SHARE * total
    ]
