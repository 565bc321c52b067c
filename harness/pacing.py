"""Timing at a camera's rate: between two images the processor rests.

A tight loop keeps clocks up, caches warm and threads spinning. An application that takes 30 images
a second waits most of the time, and each call then begins on a core that slowed down or slept. The
same artifact timed both ways tells what the tight loop hides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.clocks import Clock, interval, no_collection, until
from harness.records import Measurement
from harness.stats import percentile
from harness.timing import Tier

Sleep = Callable[[float], object]


@dataclass(frozen=True, kw_only=True)
class Paced:
    """Samples in nanoseconds; ``missed`` images came while a call was still running."""

    samples_ns: tuple[int, ...]
    period_ns: int
    missed: int

    def measurement(self, conditions: Mapping[str, Any]) -> Measurement:
        """``latency.paced``."""
        samples = tuple(map(float, self.samples_ns))
        own = {"period_ns": self.period_ns, "missed": self.missed, "statistic": "p50"}
        return Measurement(
            metric="latency.paced",
            value=percentile(samples, 50),
            unit="ns",
            samples=samples,
            conditions={**conditions, **own, "rounds": [len(samples)]},
        )


def time_paced(
    call: Callable[[int], object],
    tier: Tier,
    period_ns: int,
    *,
    inputs: int = 1,
    clock: Clock = time.perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> Paced:
    """Time ``call(slot)`` once every ``period_ns``, until the tier's count and duration hold.

    A call that lasts longer than the period misses the images that come meanwhile, as a camera's
    queue of one does; the next call begins with the image that comes after it.

    Raises:
        DetbenchError: the clock went back.
    """
    samples, missed = [], 0
    with no_collection():
        due = clock() + period_ns
        for number in until(tier.samples, tier.seconds, clock):
            now = clock()
            late = max(0, -(-(now - due) // period_ns))
            missed += late
            due += late * period_ns
            if due > now:
                sleep((due - now) / 1e9)
            samples.append(interval(call, (number % inputs,), clock)[0])
            due += period_ns
    return Paced(samples_ns=tuple(samples), period_ns=period_ns, missed=missed)
