"""METHOD rules 6 and 7 where cells take turns: simulated neighbours, alarms counted, 15 % found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import paired, stats
from harness._signed_rank import signed_rank
from harness.errors import BadInput
from harness.records import Measurement
from harness.rounds import by_turn, merge

MS = 1e6
ROUNDS, TURNS, SAMPLES = 4, 15, 6


def heat(
    rng: np.random.Generator, scales: Sequence[float], turns: int = TURNS
) -> list[paired.Round]:
    """A round of cells that take turns on a bad machine, as measured on a shared virtual one.

    A neighbour comes and goes (for some twenty turns each) and costs 55 %; the clock drifts; a
    process is off by 1 % of its own; one sample in twenty has a heavy tail.
    """
    count = len(scales)
    steps = turns * count
    busy = np.logical_xor.accumulate(rng.random(steps) < 0.05)
    level = np.cumsum(rng.normal(0, 0.004, steps)) + math.log(1.55) * busy
    own = rng.normal(0, 0.01, count)
    found: list[list[np.ndarray]] = [[] for _ in scales]
    for turn in range(turns):
        order = np.arange(count) if turn % 2 == 0 else np.arange(count)[::-1]
        for place, cell in enumerate(order):
            spikes = 1 + (rng.random(SAMPLES) < 0.05) * rng.pareto(1.5, SAMPLES)
            noise = np.exp(rng.normal(0, 0.03, SAMPLES))
            base = scales[cell] * math.exp(own[cell] + level[turn * count + place])
            found[cell].append(10 * MS * base * noise * spikes)
    return list(found)


def run(rng: np.random.Generator, slower: float) -> tuple[stats.Verdict, stats.Verdict]:
    """The verdict by turns, and the one that the same samples give without them."""
    control = heat(rng, [1.0] * 8)
    floor, apart = paired.floor(control, ROUNDS), paired.floor_apart(control, ROUNDS)
    both = [heat(rng, [1.0, slower]) for _ in range(ROUNDS)]
    a, b = [one[0] for one in both], [one[1] for one in both]
    assert floor is not None
    verdict = paired.compare(a, b, noise_floor=floor)
    assert verdict is not None
    flat = [np.concatenate([np.concatenate(one) for one in side]) for side in (a, b)]
    sizes = [TURNS * SAMPLES] * ROUNDS
    return verdict, stats.compare(*flat, noise_floor=apart, rounds=(sizes, sizes))


@pytest.mark.slow  # 2,000 runs of 20 processes each take 30 s
def test_aa_false_alarms_by_turns_are_at_most_one_in_500() -> None:
    rng = np.random.default_rng(5)
    found = [run(rng, 1.0)[0].outcome for _ in range(2000)]
    assert len(found) - found.count("indistinguishable") <= 4


def test_a_planted_15_percent_is_found_beside_a_neighbour_only_by_turns() -> None:
    rng = np.random.default_rng(8)
    found = [run(rng, 1.15) for _ in range(100)]
    assert sum(by_turns.outcome == "slower" for by_turns, _ in found) >= 95
    assert sum(without.outcome == "slower" for _, without in found) < 50
    ratios = [by_turns.ratio for by_turns, _ in found if by_turns.ratio]
    assert np.median(ratios) == pytest.approx(1.15, abs=0.01)


def test_the_verdict_is_the_same_from_the_other_side() -> None:
    rng = np.random.default_rng(1)
    both = [heat(rng, [1.0, 1.2]) for _ in range(2)]
    a, b = [one[0] for one in both], [one[1] for one in both]
    there = paired.compare(a, b, noise_floor=0.02, names=("torch", "ort"))
    back = paired.compare(b, a, noise_floor=0.02, names=("ort", "torch"))
    assert there
    assert back
    assert (there.outcome, back.outcome) == ("slower", "faster")
    assert there.ratio
    assert back.ratio
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.low
    assert there.high
    assert there.low < 1.2 < there.high
    assert paired.compare(a, b, noise_floor=0.5).outcome == "indistinguishable"  # type: ignore[union-attr]  # enough turns


def test_too_few_turns_or_processes_decide_nothing() -> None:
    rng = np.random.default_rng(1)
    few = heat(rng, [1.0, 1.2], turns=4)
    assert paired.compare([few[0], few[0]], [few[1], few[1]], noise_floor=0.02) is None
    assert paired.floor(few, 2) is None
    assert paired.floor(heat(rng, [1.0] * 3), 2) is None


def test_the_floor_is_students_t_on_what_processes_differ_by() -> None:
    level = np.linspace(0, 1, 12)  # any drift that all share
    own = [0.01, -0.01, 0.01, -0.01]
    control = [[np.exp([drift + off] * 3) for drift in level] for off in own]
    expected = math.expm1(16.3263 * 0.01 * math.sqrt(4 / 3) * math.sqrt(2 / 2))
    assert paired.floor(control, 2) == pytest.approx(expected, rel=1e-4)
    apart = paired.floor_apart(control, 2)
    assert apart is not None
    assert apart > 10 * expected  # one after the other, the drift is theirs


def test_a_sample_that_is_no_time_is_named() -> None:
    fine, bad = [[[1.0, 2.0]] * 12], [[[1.0, 0.0]] * 12]
    with pytest.raises(BadInput, match="ort has a sample that is not a positive time"):
        paired.compare(fine, bad, noise_floor=0.01, names=("torch", "ort"))


def test_turns_survive_the_joining_of_rounds() -> None:
    def part(turns: list[int]) -> Measurement:
        samples = tuple(float(number + 1) for number in range(sum(turns)))
        return Measurement(
            metric="latency.inference",
            value=None,
            unit="ns",
            samples=samples,
            conditions={"rounds": [len(samples)], "turns": [turns]},
        )

    (joined,) = merge([[part([3, 4])], [part([2])]])
    rounds = by_turn(joined)
    assert rounds
    assert [[len(turn) for turn in one] for one in rounds] == [[3, 4], [2]]
    alone = Measurement(metric="latency.inference", value=None, unit="ns", samples=(1.0,))
    (mixed,) = merge([[part([3])], [alone]])
    assert by_turn(mixed) is None
    assert paired.split([1.0, 2.0], [[3]]) is None


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-30, 30), min_size=1, max_size=60))
def test_the_signed_rank_test_is_scipys(values: list[int]) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    kept = [value for value in values if value]
    if not kept:
        assert signed_rank(values) == 1.0
        return
    tied = len({abs(value) for value in kept}) < len(kept)
    method = "exact" if len(kept) <= 25 and not tied else "approx"
    expected = scipy_stats.wilcoxon(kept, correction=True, method=method).pvalue
    assert signed_rank(values) == pytest.approx(min(expected, 1.0), abs=1e-9)
