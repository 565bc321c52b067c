"""The timing core: METHOD rules 2, 3, 4, 6 and 9, on a clock that the tests turn by hand."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest

from harness import stats
from harness.clocks import no_collection, resolution_ns
from harness.errors import DetbenchError
from harness.interfaces import RawOutputs
from harness.records import Measurement, decode, encode
from harness.timing import (
    TIERS,
    Tier,
    Timing,
    round_order,
    time_calls,
    time_repeats,
    time_stages,
)

MS = 1_000_000
SHORT = Tier(name="quick", samples=20, seconds=0.1, warmup_calls=3, warmup_seconds=0.0)


class FakeClock:
    """Moves by ``tick`` at each reading and by what a call costs."""

    def __init__(self, tick: int = 30) -> None:
        self.now, self.tick = 0, tick

    def __call__(self) -> int:
        self.now += self.tick
        return self.now

    def costing(self, ns: int, slots: list[int] | None = None) -> Callable[[int], int]:
        def call(slot: int) -> int:
            self.now += ns
            if slots is not None:
                slots.append(slot)
            return slot

        return call


@pytest.mark.parametrize(
    ("name", "count", "seconds"), [("rapid", 64, 6), ("quick", 128, 10), ("normal", 1024, 60)]
)
def test_tiers_are_those_of_the_method(name: str, count: int, seconds: float) -> None:
    assert (TIERS[name].samples, TIERS[name].seconds) == (count, seconds)
    assert not TIERS[name].trial


def test_the_smoke_tier_is_marked_and_licenses_a_median() -> None:
    assert TIERS["smoke"].trial
    assert TIERS["smoke"].samples >= stats.needed(50)
    assert set(TIERS) == {"smoke", "rapid", "quick", "normal"}


@pytest.mark.parametrize(("rounds", "count", "seconds"), [(1, 64, 6), (3, 22, 2), (7, 10, 6 / 7)])
def test_shares_add_up_to_the_tier(rounds: int, count: int, seconds: float) -> None:
    share = TIERS["rapid"].share(rounds)
    assert share.samples == count
    assert rounds * share.samples >= 64
    assert share.seconds == pytest.approx(seconds)
    assert share.warmup_calls == TIERS["rapid"].warmup_calls


def test_a_share_of_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 round, not 0"):
        TIERS["rapid"].share(0)


def test_a_fast_call_goes_on_until_the_time_is_up() -> None:
    clock = FakeClock()
    timing = time_calls(clock.costing(MS), SHORT, clock=clock)
    assert len(timing.samples_ns) == 100
    assert set(timing.samples_ns) == {MS + 30}


def test_a_slow_call_goes_on_until_the_count_is_reached() -> None:
    clock = FakeClock()
    timing = time_calls(clock.costing(100 * MS), SHORT, clock=clock)
    assert len(timing.samples_ns) == 20


def test_first_warmup_and_steady_state_are_apart() -> None:
    clock = FakeClock()
    costs = iter([50 * MS, 9 * MS, 8 * MS, 7 * MS])

    def call(slot: int) -> None:
        clock.now += next(costs, 5 * MS)

    timing = time_calls(call, SHORT, clock=clock)
    assert timing.first_ns == 50 * MS + 30
    assert timing.warmup_ns == (9 * MS + 30, 8 * MS + 30, 7 * MS + 30)
    assert set(timing.samples_ns) == {5 * MS + 30}


def test_warm_up_lasts_for_its_minimum_time_too() -> None:
    clock = FakeClock()
    tier = Tier(name="quick", samples=1, seconds=0, warmup_calls=3, warmup_seconds=0.1)
    assert len(time_calls(clock.costing(10 * MS), tier, clock=clock).warmup_ns) == 10


def test_a_slow_sample_is_kept() -> None:
    clock = FakeClock()
    calls = iter(range(1000))

    def call(slot: int) -> None:
        clock.now += 500 * MS if next(calls) == 10 else 5 * MS

    assert max(time_calls(call, SHORT, clock=clock).samples_ns) == 500 * MS + 30


def test_calls_below_ten_ticks_are_batched_and_it_is_recorded() -> None:
    clock = FakeClock(tick=1000)
    slots: list[int] = []
    timing = time_calls(clock.costing(700, slots), SHORT, inputs=3, clock=clock)
    assert timing.resolution_ns == 1000
    assert timing.batched_by == 16
    assert min(timing.samples_ns) >= 10 * timing.resolution_ns
    assert timing.per_call_ns[0] == (16 * 700 + 1000) / 16
    conditions = timing.measurements("inference")[0].conditions
    assert (conditions["batched_by"], conditions["resolution_ns"]) == (16, 1000)
    assert set(slots) == {0, 1, 2}


def test_calls_of_ten_ticks_are_not_batched() -> None:
    clock = FakeClock(tick=1000)
    assert time_calls(clock.costing(9000), SHORT, clock=clock).batched_by == 1


def test_the_ring_of_inputs_turns() -> None:
    clock = FakeClock()
    slots: list[int] = []
    time_calls(clock.costing(10 * MS, slots), SHORT, inputs=4, clock=clock)
    steady = slots[1 + SHORT.warmup_calls :]
    assert steady == [i % 4 for i in range(20)]


def test_kept_outputs_are_copies_of_seeded_calls_within_the_guaranteed_count() -> None:
    clock = FakeClock()
    buffer = np.zeros((1, 3, 2), dtype=np.float32)

    def call(slot: int) -> RawOutputs:
        clock.now += MS
        buffer[:] = slot
        return RawOutputs(buffer, buffer)

    timing, again = (time_calls(call, SHORT, inputs=5, keep=3, seed=1, clock=clock) for _ in "ab")
    other = time_calls(call, SHORT, inputs=5, keep=3, seed=2, clock=clock)
    assert len(timing.kept) == 3
    assert [kept.call for kept in timing.kept] == [kept.call for kept in again.kept]
    assert [kept.call for kept in timing.kept] != [kept.call for kept in other.kept]
    for kept in timing.kept:
        assert kept.call < SHORT.samples
        assert kept.slot == kept.call % 5
        assert (kept.output.logits == kept.slot).all()


def test_keeping_outputs_adds_nothing_to_a_sample() -> None:
    clock = FakeClock()

    def slow_copy(output: object) -> object:
        clock.now += 400 * MS
        return output

    timing = time_calls(clock.costing(MS), SHORT, keep=5, keep_as=slow_copy, clock=clock)
    assert set(timing.samples_ns) == {MS + 30}


def test_asking_for_more_outputs_than_calls_keeps_all() -> None:
    clock = FakeClock()
    timing = time_calls(clock.costing(50 * MS), SHORT, keep=99, clock=clock)
    assert [kept.call for kept in timing.kept] == list(range(20))


def test_stages_add_up_to_end_to_end() -> None:
    clock = FakeClock()

    def stage(ms: int) -> Callable[[int], int]:
        def step(value: int) -> int:
            clock.now += ms * MS
            return value + 1

        return step

    stages = {"preprocess": stage(2), "inference": stage(10), "postprocess": stage(1)}
    timings = time_stages(stages, SHORT, clock=clock)
    assert list(timings) == ["preprocess", "inference", "postprocess", "end_to_end"]
    assert timings["inference"].samples_ns == (10 * MS + 30,) * 20
    for parts in zip(*(timings[name].samples_ns for name in timings), strict=True):
        assert sum(parts[:3]) == parts[3]
    assert timings["end_to_end"].first_ns == 13 * MS + 90
    assert len(timings["end_to_end"].warmup_ns) == 3


def test_a_stage_too_short_for_the_clock_has_samples_and_no_value() -> None:
    clock = FakeClock(tick=1000)

    def step(ns: int) -> Callable[[int], int]:
        def call(value: int) -> int:
            clock.now += ns
            return value

        return call

    found = time_stages({"short": step(5000), "long": step(MS)}, SHORT, clock=clock)
    short, long = (found[name].measurements(name)[0] for name in ("short", "long"))
    assert (short.value, short.conditions["too_short"]) == (None, True)
    assert len(short.samples) == len(long.samples) > SHORT.samples
    assert long.value == MS + 1000
    assert "too_short" not in long.conditions


def test_each_stage_is_given_what_the_one_before_answered() -> None:
    seen: list[tuple[str, int]] = []

    def load(slot: int) -> int:
        seen.append(("load", slot))
        return slot + 100

    def infer(value: int) -> None:
        seen.append(("infer", value))

    tier = Tier(name="quick", samples=2, seconds=0, warmup_calls=0, warmup_seconds=0)
    time_stages({"load": load, "infer": infer}, tier, inputs=2)
    assert seen == [("load", 0), ("infer", 100)] * 2 + [("load", 1), ("infer", 101)]


def test_a_runtime_that_caches_its_last_answer_is_caught() -> None:
    clock = FakeClock()
    last = [-1]

    def caching(slot: int) -> None:
        clock.now += 1 * MS if slot == last[0] else 10 * MS
        last[0] = slot

    assert stats.caching(*time_repeats(caching, 8, clock=clock)) is not None
    assert stats.caching(*time_repeats(clock.costing(10 * MS), 8, clock=clock)) is None


def test_a_runtime_that_remembers_every_answer_is_caught_with_an_input_per_pair() -> None:
    clock = FakeClock()
    known: set[int] = set()

    def remembering(slot: int) -> None:
        clock.now += 1 * MS if slot in known else 10 * MS
        known.add(slot)

    assert stats.caching(*time_repeats(remembering, 32, pairs=32, clock=clock)) is not None


def test_the_collector_rests_during_calls_and_is_restored() -> None:
    states: list[bool] = []
    clock = FakeClock()

    def call(slot: int) -> None:
        clock.now += 50 * MS
        states.append(gc.isenabled())

    time_calls(call, SHORT, clock=clock)
    assert set(states) == {False}
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_restored_after_an_error() -> None:
    def fail(slot: int) -> None:
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        time_calls(fail, SHORT)
    assert gc.isenabled()


def test_a_clock_that_goes_back_is_refused() -> None:
    clock = FakeClock()

    def call(slot: int) -> None:
        clock.now -= 7000

    with pytest.raises(DetbenchError, match="clock went back by 6970 ns"):
        time_calls(call, SHORT, clock=clock)


def test_a_clock_that_stands_still_is_refused() -> None:
    with pytest.raises(DetbenchError, match="stands still"):
        resolution_ns(lambda: 5, reads=10)


def test_no_input_and_no_stage_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 input"):
        time_calls(lambda slot: slot, SHORT, inputs=0)
    with pytest.raises(ValueError, match="1 stage"):
        time_stages({}, SHORT)


def test_measurements_hold_all_samples_and_survive_json() -> None:
    clock = FakeClock()
    timing = time_calls(clock.costing(5 * MS), SHORT, clock=clock)
    steady, first, warmup = timing.measurements("inference")
    assert [m.metric for m in (steady, first, warmup)] == [
        "latency.inference",
        "latency.first_inference",
        "latency.warmup_inference",
    ]
    assert steady.value == 5 * MS + 30
    assert steady.samples == timing.samples_ns
    assert steady.conditions["rounds"] == [20]
    assert steady.conditions["tier"] == "quick"
    assert steady.conditions["trial"] is False
    assert (first.value, warmup.value, len(warmup.samples)) == (5 * MS + 30, None, 3)
    assert decode(encode(steady), Measurement, "here") == steady


def test_too_few_samples_make_a_measurement_without_a_value() -> None:
    clock = FakeClock()
    timing = time_calls(clock.costing(50 * MS), TIERS["smoke"].share(2), clock=clock)
    assert len(timing.samples_ns) == 6
    assert timing.measurements("inference")[0].value is None


def test_a_pair_of_rounds_cancels_a_linear_drift() -> None:
    """A fake runner slows down by 1 % with every cell timed: the three cells still tie."""
    slowness, total = 100.0, dict.fromkeys(range(3), 0.0)
    for number in range(4):
        order = round_order(3, number, seed=9)
        assert sorted(order) == [0, 1, 2]
        for cell in order:
            total[cell] += slowness
            slowness += 1
    assert len(set(total.values())) == 1


def test_round_orders_differ_and_repeat_with_the_seed() -> None:
    orders = {tuple(round_order(5, number, seed=0)) for number in range(8)}
    assert len(orders) > 4
    assert round_order(5, 3, seed=0) == round_order(5, 3, seed=0)
    assert round_order(5, 0, seed=0) != round_order(5, 0, seed=1)


@pytest.mark.slow
def test_planted_drift_vanishes_from_the_comparison() -> None:
    """Two equal cells on a machine that slows down by 2 % with every round timed."""
    samples: dict[int, list[tuple[int, ...]]] = {0: [], 1: []}
    slowed = 1.0
    rng = np.random.default_rng(0)
    for number in range(4):
        for cell in round_order(2, number, seed=0):
            clock = FakeClock()

            def call(slot: int, clock: FakeClock = clock, slowed: float = slowed) -> None:
                clock.now += int(10 * MS * slowed * rng.lognormal(0, 0.001))

            samples[cell].append(time_calls(call, SHORT, clock=clock).samples_ns)
            slowed *= 1.02
    a, b = (np.concatenate(rounds) for rounds in samples.values())
    sizes = tuple([len(part) for part in rounds] for rounds in samples.values())
    fair = stats.compare(a, b, noise_floor=0.01, rounds=(sizes[0], sizes[1]))
    assert fair.outcome == "indistinguishable"
    assert stats.compare(a[:40], b[40:], noise_floor=0.01).outcome == "slower"


def test_the_real_clock_tells_microseconds() -> None:
    assert 0 < resolution_ns() < 100_000


def test_a_sleep_is_timed_as_long_as_it_lasts() -> None:
    """The least of the samples: a busy machine only ever makes a sleep longer."""
    tier = Tier(name="quick", samples=10, seconds=0, warmup_calls=1, warmup_seconds=0)
    timing: Timing = time_calls(lambda slot: time.sleep(0.002), tier)
    assert 2 * MS <= min(timing.samples_ns) < 20 * MS
