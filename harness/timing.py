"""Timing of calls: raw samples in nanoseconds, and the conditions they hold under.

What a call costs is kept in three parts that are never mixed: the first call, the warm-up and the
steady state. A timed interval holds two clock readings and the call, nothing else: choosing the
input, keeping an output and the decision to stop all happen between the intervals. Python's cyclic
garbage collector runs once before and not during the calls, since its pauses are the harness's and
not the runtime's; objects are still freed by reference counting.

A cell's time is split over rounds that run in processes of their own (`Tier.share`), so that cells
to be compared can take turns (`round_order`). Their samples are joined one after the other; the
rounds' lengths stand in ``conditions["rounds"]``.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from harness.clocks import Clock, elapsed, interval, no_collection, resolution_ns, until
from harness.records import Measurement, Record
from harness.stats import percentile

LEAST_TICKS = 10
TURN_SECONDS, TURN_CALLS = 0.03, 3
"""Least length of a turn: short against the time for which a neighbour slows a machine down, so
that a round has many turns. The first call of each costs extra."""


class Tier(Record, frozen=True, kw_only=True):
    """How long to time. Both the count AND the duration must be reached, of either phase."""

    name: str
    samples: int
    seconds: float
    warmup_calls: int
    warmup_seconds: float

    @property
    def trial(self) -> bool:
        """Whether figures of this tier only show that the machinery works."""
        return self.name == "smoke"

    def share(self, rounds: int) -> Tier:
        """What one of ``rounds`` rounds has to do. Each warms up in full: it is a new process.

        Raises:
            ValueError: ``rounds`` is below 1.
        """
        if rounds < 1:
            raise ValueError(f"a cell is timed in at least 1 round, not {rounds}")
        samples = math.ceil(self.samples / rounds)
        return msgspec.structs.replace(self, samples=samples, seconds=self.seconds / rounds)


TIERS: Mapping[str, Tier] = MappingProxyType(
    {
        tier.name: tier
        for tier in (
            Tier(name="smoke", samples=12, seconds=0.2, warmup_calls=1, warmup_seconds=0.02),
            Tier(name="rapid", samples=64, seconds=6, warmup_calls=3, warmup_seconds=0.3),
            Tier(name="quick", samples=128, seconds=10, warmup_calls=5, warmup_seconds=0.5),
            Tier(name="normal", samples=1024, seconds=60, warmup_calls=10, warmup_seconds=1),
        )
    }
)
"""By name. The last three are the counts and durations of MLPerf's mobile app; ``smoke`` is for
tests and licenses no more than a median."""


class Kept(NamedTuple):
    """What one timed call answered: ``call`` is its number, ``slot`` the input it was given."""

    call: int
    slot: int
    output: Any


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Samples of one call, in nanoseconds.

    Attributes:
        tier: what was asked.
        first_ns: the first call.
        warmup_ns: the calls after it, not part of the steady state.
        samples_ns: the steady state; each sample is the time of ``batched_by`` calls.
        batched_by: above 1 where a single call is too short for the clock.
        resolution_ns: the least time that the clock can tell.
        inputs: how many prepared inputs took turns.
        kept: outputs of a few timed calls.
        turns: where other processes were given turns in between, how many samples each turn gave.
        resumed_ns: the first call of each turn, which finds other work in the caches; no part of
            the steady state.
    """

    tier: Tier
    first_ns: int
    warmup_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    batched_by: int
    resolution_ns: int
    inputs: int
    kept: tuple[Kept, ...] = ()
    turns: tuple[int, ...] = ()
    resumed_ns: tuple[int, ...] = ()

    @property
    def per_call_ns(self) -> tuple[float, ...]:
        """The steady state, one call each (the mean of a batch where calls are batched)."""
        return tuple(sample / self.batched_by for sample in self.samples_ns)

    @property
    def too_short(self) -> bool:
        """Whether a sample is below ten ticks of the clock: a pipeline's stage, never batched."""
        least = LEAST_TICKS * self.resolution_ns
        return bool(self.samples_ns) and median(self.samples_ns) < least

    def measurements(self, stage: str) -> tuple[Measurement, ...]:
        """``latency.<stage>``, ``latency.first_<stage>`` and ``latency.warmup_<stage>``.

        A stage that is too short for the clock keeps its samples and has no value.
        """
        conditions: dict[str, Any] = {
            "tier": self.tier.name,
            "trial": self.tier.trial,
            "rounds": [len(self.samples_ns)],
            "batched_by": self.batched_by,
            "resolution_ns": self.resolution_ns,
            "inputs": self.inputs,
            "statistic": "p50",
        }
        steady, first = self.per_call_ns, (float(self.first_ns),)
        warmup = tuple(float(sample) for sample in self.warmup_ns)
        typical = percentile(steady, 50)
        if self.turns:
            conditions["turns"] = [list(self.turns)]
        if self.too_short:
            conditions["too_short"] = True
            typical = None
        return (
            _measurement(f"latency.{stage}", typical, steady, conditions),
            _measurement(f"latency.first_{stage}", first[0], first, {}),
            _measurement(f"latency.warmup_{stage}", None, warmup, {}),
        )


def time_calls(
    call: Callable[[int], object],
    tier: Tier,
    *,
    inputs: int = 1,
    keep: int = 0,
    seed: int = 0,
    keep_as: Callable[[Any], Any] = copy.deepcopy,
    clock: Clock = time.perf_counter_ns,
    give_way: Callable[[], None] | None = None,
) -> Timing:
    """Time ``call(slot)``, where ``slot`` runs over 0 … ``inputs`` - 1 again and again.

    Args:
        call: does what is timed, on the prepared input number ``slot``.
        tier: counts and durations; for a round of many, ``tier.share(rounds)``.
        inputs: size of the ring of prepared inputs; 1 times the same input each time.
        keep: of how many timed calls to keep the output; ``seed`` picks them among the calls that
            the tier guarantees, so a runtime cannot know which.
        keep_as: copies an output, between two timed intervals: the runtime may reuse its buffers.
        clock: monotonic, in nanoseconds.
        give_way: lets other processes have their turns and answers when it is ours again; called
            before each turn of `TURN_SECONDS`. The time that they take counts for nothing.

    Raises:
        DetbenchError: the clock went back or stands still.
        ValueError: ``inputs`` is below 1.
    """
    if inputs < 1:
        raise ValueError(f"there must be at least 1 input, not {inputs}")
    resolution = resolution_ns(clock)
    with no_collection():
        first = interval(call, (0,), clock)[0]
        warmup = [
            interval(call, (number % inputs,), clock)[0]
            for number in until(tier.warmup_calls, tier.warmup_seconds, clock)
        ]
        batch = _batch(call, median(warmup or [first]), resolution, clock)
        picked = random.Random(seed).sample(range(tier.samples), min(keep, tier.samples))
        chosen = frozenset(picked)
        samples: list[int] = []
        kept: list[Kept] = []
        turns: list[int] = []
        resumed: list[int] = []

        def sample() -> None:
            number = len(samples)
            slots = tuple((number * batch + i) % inputs for i in range(batch))
            elapsed, output = interval(call, slots, clock)
            samples.append(elapsed)
            if number in chosen:
                kept.append(Kept(number, slots[-1], keep_as(output)))

        if give_way is None:
            for _ in until(tier.samples, tier.seconds, clock):
                sample()
        else:
            spent = 0.0
            while len(samples) < tier.samples or spent < tier.seconds:
                give_way()
                begun = clock()
                resumed.append(interval(call, (0,), clock)[0])
                before = len(samples)
                for _ in until(TURN_CALLS, TURN_SECONDS, clock):
                    sample()
                turns.append(len(samples) - before)
                spent += (clock() - begun) / 1e9
    return Timing(
        tier=tier,
        first_ns=first,
        warmup_ns=tuple(warmup),
        samples_ns=tuple(samples),
        batched_by=batch,
        resolution_ns=resolution,
        inputs=inputs,
        kept=tuple(kept),
        turns=tuple(turns),
        resumed_ns=tuple(resumed),
    )


def time_stages(
    stages: Mapping[str, Callable[[Any], Any]],
    tier: Tier,
    *,
    inputs: int = 1,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time a pipeline and each of its stages: ``end_to_end`` is their sum, sample by sample.

    The first stage is given the slot, each other one what the stage before it answered. One clock
    reading stands between two stages. Stages cannot be batched, since each needs what the one
    before answered; one that is shorter than ten ticks of the clock says so.

    Raises:
        DetbenchError: the clock went back or stands still.
        ValueError: there is no stage or no input.
    """
    if inputs < 1 or not stages:
        raise ValueError(f"need at least 1 input and 1 stage, not {inputs} and {len(stages)}")
    resolution = resolution_ns(clock)
    steps = tuple(stages.values())
    with no_collection():
        first = _chain(steps, 0, clock)
        warmup = [
            _chain(steps, number % inputs, clock)
            for number in until(tier.warmup_calls, tier.warmup_seconds, clock)
        ]
        samples = [
            _chain(steps, number % inputs, clock)
            for number in until(tier.samples, tier.seconds, clock)
        ]

    def timing(pick: Callable[[tuple[int, ...]], int]) -> Timing:
        return Timing(
            tier=tier,
            first_ns=pick(first),
            warmup_ns=tuple(map(pick, warmup)),
            samples_ns=tuple(map(pick, samples)),
            batched_by=1,
            resolution_ns=resolution,
            inputs=inputs,
        )

    found = {name: timing(itemgetter(i)) for i, name in enumerate(stages)}
    return {**found, "end_to_end": timing(sum)}


def time_repeats(
    call: Callable[[int], object],
    inputs: int,
    *,
    pairs: int = 32,
    clock: Clock = time.perf_counter_ns,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Time each input twice in a row: as a fresh one, then as one seen just before.

    The two take turns, so drift cancels. Give as many inputs as pairs to see through a cache of
    any size; `harness.stats.caching` judges the result.
    """
    fresh, repeated = [], []
    with no_collection():
        for number in range(pairs):
            slot = (number % inputs,)
            fresh.append(interval(call, slot, clock)[0])
            repeated.append(interval(call, slot, clock)[0])
    return tuple(fresh), tuple(repeated)


def round_order(cells: int, number: int, seed: int) -> list[int]:
    """In which order to time ``cells`` cells in round ``number``, counted from 0.

    Even rounds are shuffled; each odd one mirrors the round before it, so that over a pair of
    rounds a linear drift of the machine adds the same to every cell.
    """
    order = list(range(cells))
    random.Random(f"{seed}/{number // 2}").shuffle(order)
    return order[::-1] if number % 2 else order


def _chain(steps: tuple[Callable[[Any], Any], ...], slot: int, clock: Clock) -> tuple[int, ...]:
    """Time of each stage. Stage outputs live until the end, so none is freed inside another."""
    outputs: list[Any] = [slot]
    stamps = [clock()]
    for step in steps:
        outputs.append(step(outputs[-1]))
        stamps.append(clock())
    return tuple(elapsed(a, b) for a, b in itertools.pairwise(stamps))


def _batch(call: Callable[[int], object], typical: float, resolution: int, clock: Clock) -> int:
    """How many calls make a sample of 10 ticks or more; trial batches belong to no phase."""
    least = LEAST_TICKS * resolution
    if typical >= least:
        return 1
    size = 1
    while min(interval(call, (0,) * size, clock)[0] for _ in range(3)) < least:
        size *= 2
    return size


def _measurement(
    metric: str, value: float | None, samples: tuple[float, ...], conditions: dict[str, Any]
) -> Measurement:
    return Measurement(
        metric=metric, value=value, unit="ns", samples=samples, conditions=conditions
    )
