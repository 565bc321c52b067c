"""A sustained run: the same call for minutes, with the machine's clock and heat beside it.

A small board holds its highest clock for a while, then the heat makes it slow down. Which export is
fastest then may be another one. Samples are batches of calls of about a tenth of a second, so that
ten minutes make some thousands of them; each knows when it began.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from harness.clocks import Clock, interval, no_collection
from harness.machine_state import MachineState, state
from harness.records import Measurement

SAMPLE_S = 0.1
LOOK_EVERY_S = 1.0
WINDOWS = 60
"""A run is looked at in so many parts."""
SLOWED = 1.05
"""A run throttled where it got slower than at its start by so much and stayed so; a quiet machine's
noise is smaller."""


class Look(NamedTuple):
    """The machine at a moment of the run; None what cannot be read."""

    at_ns: int
    mhz: float | None
    celsius: float | None
    throttled: bool | None


@dataclass(frozen=True, kw_only=True)
class Sustained:
    """Samples in nanoseconds per call, when each began, and the looks between them."""

    samples_ns: tuple[float, ...]
    at_ns: tuple[int, ...]
    batched_by: int
    looks: tuple[Look, ...]

    def measurements(self, conditions: dict[str, Any]) -> list[Measurement]:
        """``sustain.inference``, ``.at``, ``.mhz``, ``.celsius`` and ``.looked_at``."""
        how = {**conditions, "batched_by": self.batched_by}
        seen = [
            _plain("sustain.inference", "ns", self.samples_ns, how),
            _plain("sustain.at", "ns", self.at_ns),
        ]
        for name, unit in (("mhz", "MHz"), ("celsius", "°C"), ("throttled", "1")):
            known = [(one.at_ns, getattr(one, name)) for one in self.looks]
            known = [(at, value) for at, value in known if value is not None]
            if known:
                at = {"at_ns": [when for when, _ in known]}
                seen.append(_plain(f"sustain.{name}", unit, [value for _, value in known], at))
        return seen


def run(
    call: Callable[[int], object],
    seconds: float,
    *,
    inputs: int = 1,
    clock: Clock = time.perf_counter_ns,
    look: Callable[[], MachineState] = state,
) -> Sustained:
    """Call again and again for so long. The machine is looked at between samples, once a second.

    Raises:
        DetbenchError: the clock went back.
    """
    samples: list[float] = []
    starts: list[int] = []
    looks: list[Look] = []
    with no_collection():
        typical = min(interval(call, (slot % inputs,), clock)[0] for slot in range(3))
        batch = max(1, math.ceil(SAMPLE_S * 1e9 / max(typical, 1)))
        begun = clock()
        next_look = begun
        number = 0
        while (now := clock()) - begun < seconds * 1e9:
            if now >= next_look:
                looks.append(_seen(now - begun, look()))
                next_look = now + round(LOOK_EVERY_S * 1e9)
            slots = tuple((number + i) % inputs for i in range(batch))
            starts.append(clock() - begun)
            samples.append(interval(call, slots, clock)[0] / batch)
            number += batch
    return Sustained(
        samples_ns=tuple(samples), at_ns=tuple(starts), batched_by=batch, looks=tuple(looks)
    )


def windows(samples: Sequence[float], at_ns: Sequence[float]) -> list[tuple[float, float]]:
    """Middle in seconds and median in nanoseconds of each part of a run that has samples."""
    if not samples:
        return []
    values, at = np.asarray(samples, np.float64), np.asarray(at_ns, np.float64)
    length = (at[-1] + values[-1]) / WINDOWS
    part = np.minimum((at / length).astype(np.int64), WINDOWS - 1)
    return [
        ((index + 0.5) * length / 1e9, float(np.median(values[part == index])))
        for index in range(WINDOWS)
        if (part == index).any()
    ]


def time_to_throttle_s(samples: Sequence[float], at_ns: Sequence[float]) -> float | None:
    """When the run became slower for good, in seconds; None where it did not."""
    parts = windows(samples, at_ns)
    if len(parts) < 3:
        return None
    limit = SLOWED * float(np.median([median for _, median in parts[:3]]))
    slow = [median > limit for _, median in parts]
    if not all(slow[-2:]):
        return None
    last_fast = max((index for index, is_slow in enumerate(slow) if not is_slow), default=-1)
    return parts[last_fast + 1][0]


def first_and_last(samples: Sequence[float]) -> tuple[float, float]:
    """Medians of the first and of the last tenth of a run, in nanoseconds."""
    tenth = max(1, len(samples) // 10)
    return float(np.median(samples[:tenth])), float(np.median(samples[-tenth:]))


def _seen(at_ns: int, found: MachineState) -> Look:
    mhz, heat = found.frequencies_mhz, found.temperatures_c
    flags = found.throttled
    return Look(
        at_ns=at_ns,
        mhz=sum(mhz) / len(mhz) if mhz else None,
        celsius=max(heat.values()) if heat else None,
        throttled=None if flags is None else bool(flags & 0xF),
    )


def _plain(
    metric: str, unit: str, samples: Sequence[float], conditions: dict[str, Any] | None = None
) -> Measurement:
    return Measurement(
        metric=metric,
        value=None,
        unit=unit,
        samples=tuple(map(float, samples)),
        conditions=conditions or {},
    )
