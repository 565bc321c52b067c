"""Statistics of raw samples: METHOD rules 1, 4, 5, 7 and 9, each with a planted fault."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness import stats
from harness._distributions import binomial_cdf, student_quantile
from harness.errors import BadInput
from harness.rounds import floor_rounds

MS = 1_000_000
LOADGEN = {50: 11, 75: 24, 90: 64, 95: 130, 99: 662, 99.9: 6636}


def noisy_rounds(
    rng: np.random.Generator,
    rounds: int,
    count: int,
    *,
    scale: float = 1.0,
    process: float = 0.01,
    position: float = 0.0,
) -> list[NDArray[Any]]:
    """Rounds of one cell on a bad machine: heavy tails, autocorrelation, drift, restarts.

    A linear drift of 0.3 % a round runs through; ``position`` is the cell's place in the round.
    Every round has an offset of its own (``process``), as a new process has.
    """
    made = []
    for number in range(rounds):
        walk = np.convolve(rng.normal(0, 0.002, count + 8), np.ones(8), mode="valid")[:count]
        offset = rng.normal(0, process) + 0.003 * (number + position)
        spikes = 1 + (rng.random(count) < 0.05) * rng.pareto(1.5, count)
        made.append((10 * MS * scale * np.exp(offset + walk) * spikes).astype(np.int64))
    return made


def verdict(rng: np.random.Generator, *, slower: float, rounds: int = 4) -> stats.Verdict:
    """One whole run: the A/A floor first, then two interleaved cells."""
    control = noisy_rounds(rng, floor_rounds(rounds, trial=False), 24)
    floor = stats.noise_floor(control, per_cell=rounds)
    a = noisy_rounds(rng, rounds, 24)
    b = noisy_rounds(rng, rounds, 24, scale=slower, position=0.5)
    sizes = [24] * rounds
    return stats.compare(
        np.concatenate(a), np.concatenate(b), noise_floor=floor, rounds=(sizes, sizes)
    )


@pytest.mark.parametrize(("p", "count"), LOADGEN.items())
def test_percentiles_are_licensed_by_the_counts_of_loadgen(p: float, count: int) -> None:
    assert stats.needed(p) == count
    samples = np.arange(1, count + 1)
    assert stats.percentile(samples, p) == pytest.approx(np.percentile(samples, p))
    assert stats.percentile(samples[:-1], p) is None
    assert stats.license_text(count - 1, p) == f"needs {count}, has {count - 1}"
    assert stats.license_text(count, p) is None


def test_a_low_percentile_needs_as_many_as_its_mirror() -> None:
    assert stats.needed(1) == stats.needed(99)


@pytest.mark.parametrize("p", [0, 100, -1, math.inf])
def test_a_percentile_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 100"):
        stats.needed(p)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 400), chance=st.floats(0.01, 0.99))
def test_binomial_equals_scipy(count: int, chance: float) -> None:
    from scipy.stats import binom

    np.testing.assert_allclose(
        binomial_cdf(count, chance), binom.cdf(np.arange(count + 1), count, chance), atol=1e-9
    )


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 7, 30, 300])
@pytest.mark.parametrize("chance", [0.5, 0.9, 0.975, 0.999])
def test_student_quantile_equals_scipy(chance: float, freedom: int) -> None:
    from scipy.stats import t

    assert student_quantile(chance, freedom) == pytest.approx(
        t.ppf(chance, freedom), rel=1e-4, abs=1e-9
    )


@settings(max_examples=150, deadline=None)
@given(
    a=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    b=st.lists(st.integers(0, 30), min_size=1, max_size=40),
)
def test_mann_whitney_equals_scipy_with_ties(a: list[int], b: list[int]) -> None:
    from scipy.stats import mannwhitneyu

    tied = len(set(a + b)) < len(a + b)
    exact = not tied and max(len(a), len(b)) <= 20
    if len(set(a + b)) == 1:
        assert stats.mann_whitney(a, b) == 1
        return
    expected = mannwhitneyu(a, b, method="exact" if exact else "asymptotic").pvalue
    assert stats.mann_whitney(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (3, 5), (8, 8), (20, 20), (20, 7), (21, 20), (300, 80)]
)
def test_mann_whitney_equals_scipy_without_ties(n: int, m: int) -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(n * 1000 + m)
    a, b = rng.normal(0, 1, n), rng.normal(0.5, 1, m)
    method = "exact" if max(n, m) <= 20 else "asymptotic"
    expected = mannwhitneyu(a, b, method=method).pvalue
    assert stats.mann_whitney(a, b) == pytest.approx(expected, rel=1e-9)


def test_mann_whitney_refuses_an_empty_side() -> None:
    with pytest.raises(ValueError, match="both sides"):
        stats.mann_whitney([], [1.0])


def test_median_interval_covers_as_promised() -> None:
    rng = np.random.default_rng(5)
    found = [stats.interval(rng.exponential(1, 30)) for _ in range(2000)]
    covered = [low <= math.log(2) <= high for low, high in (pair for pair in found if pair)]
    assert len(covered) == 2000
    assert 0.95 <= np.mean(covered) <= 0.98


def test_an_interval_that_no_two_samples_give_is_none() -> None:
    assert stats.interval([1.0, 2.0]) is None
    assert stats.interval(range(100), 99) is None


def test_outliers_and_slow_first_are_reported_and_kept() -> None:
    samples = [10 * MS + (i * 7919) % 1000 for i in range(100)]
    samples[0], samples[40] = 20 * MS, 15 * MS
    summary = stats.summarize(samples)
    assert list(stats.outliers(samples)) == [0, 40]
    assert (summary.count, summary.outliers, summary.slow_first) == (100, 2, True)
    assert summary.unstable
    assert summary.p99 is None
    assert "first sample" in summary.advice[0]
    assert "2 of 100" in summary.advice[1]
    assert "unstable" in summary.advice[2]


def test_calm_samples_get_no_advice() -> None:
    summary = stats.summarize([10 * MS + i % 7 for i in range(64)])
    assert summary.advice == ()
    assert not summary.unstable
    assert summary.low is not None
    assert summary.p50 is not None
    assert summary.high is not None
    assert summary.low <= summary.p50 <= summary.high
    assert summary.p90 is not None
    assert summary.p95 is None


def test_equal_samples_do_not_make_every_other_one_an_outlier() -> None:
    assert list(stats.outliers([100] * 9 + [110])) == []
    assert list(stats.outliers([100] * 9 + [200])) == [9]


@pytest.mark.parametrize("samples", [[], [5.0], [5.0, 5.0]])
def test_few_samples_make_a_summary_without_figures(samples: list[float]) -> None:
    summary = stats.summarize(samples)
    assert summary.count == len(samples)
    assert (summary.p50, summary.low, summary.high) == (None, None, None)


def test_the_unstable_mark_stands_at_two_and_a_half_percent() -> None:
    base = np.tile([-1.0, 1.0], 500)
    assert not stats.summarize(1000 + 24.9 * base).unstable
    assert stats.summarize(1000 + 25.1 * base).unstable


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [2, 4])
def test_aa_false_alarms_are_at_most_one_in_500(rounds: int) -> None:
    """On 2,000 simulated runs, so that the bound of 4 is a count and not a lucky zero."""
    rng = np.random.default_rng(2024)
    found = [verdict(rng, slower=1, rounds=rounds).outcome for _ in range(2000)]
    assert found.count("faster") + found.count("slower") <= 4
    first = found[:500]
    assert first.count("faster") + first.count("slower") <= 1


def test_without_the_floor_the_same_runs_raise_many_false_alarms() -> None:
    """The simulation is hard enough to catch a comparison that trusts Mann–Whitney alone."""
    rng = np.random.default_rng(2024)
    wrong = 0
    for _ in range(200):
        a = np.concatenate(noisy_rounds(rng, 4, 24))
        b = np.concatenate(noisy_rounds(rng, 4, 24, position=0.5))
        wrong += stats.compare(a, b, noise_floor=0.0).outcome != "indistinguishable"
    assert wrong > 20


def test_a_planted_15_percent_is_found() -> None:
    rng = np.random.default_rng(7)
    found = [verdict(rng, slower=1.15).outcome for _ in range(300)]
    assert found.count("slower") >= 0.95 * 300
    assert "faster" not in found


def test_two_rounds_rest_on_the_floor_alone() -> None:
    rng = np.random.default_rng(3)
    a, b = (np.concatenate(noisy_rounds(rng, 2, 24, scale=s)) for s in (1.0, 1.3))
    assert stats.compare(a, b, noise_floor=0.1, rounds=([24, 24], [24, 24])).outcome == "slower"


def test_a_difference_within_the_floor_is_no_difference() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(10 * MS, 1000, 500)
    assert stats.compare(a, a * 1.04, noise_floor=0.01).outcome == "slower"
    assert stats.compare(a, a * 1.04, noise_floor=0.05).outcome == "indistinguishable"
    assert stats.compare(a, a * 1.009, noise_floor=0.0).outcome == "indistinguishable"


def test_the_verdict_is_the_same_from_the_other_side() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(16, 0.01, 100), rng.lognormal(16.2, 0.01, 100)
    there = stats.compare(a, b, noise_floor=0.01, names=("torch", "ort"))
    back = stats.compare(b, a, noise_floor=0.01, names=("ort", "torch"))
    assert (there.outcome, back.outcome) == ("slower", "faster")
    assert there.ratio is not None
    assert there.low is not None
    assert there.high is not None
    assert there.ratio == pytest.approx(1 / back.ratio) if back.ratio else False
    assert there.low < math.exp(0.2) < there.high
    assert there.sentence.startswith("ort is 1.22× slower than torch (95 % interval 1.2")
    assert back.sentence.startswith("torch is 1.22× faster than ort (95 % interval 1.2")


def test_the_interval_of_the_ratio_covers_as_promised() -> None:
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(500):
        a, b = rng.lognormal(0, 0.1, 40), rng.lognormal(0.05, 0.2, 60)
        found = stats.compare(a, b, noise_floor=0.0)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= math.exp(0.05) <= found.high
    assert 0.94 <= inside / 500 <= 0.995


def test_too_few_samples_or_no_floor_cannot_tell() -> None:
    few = stats.compare([MS] * 10, [MS] * 50, noise_floor=0.01, names=("x", "y"))
    assert few.outcome == "cannot tell"
    assert "median of x needs 11, has 10" in few.sentence
    blind = stats.compare([MS] * 50, [2 * MS] * 50, noise_floor=None)
    assert blind.outcome == "cannot tell"
    assert "noise floor" in blind.sentence


@pytest.mark.parametrize("bad", [0, -5, math.nan, math.inf])
def test_a_sample_that_is_no_time_is_named(bad: float) -> None:
    with pytest.raises(BadInput, match="ort has a sample that is not a positive time"):
        stats.compare([MS] * 20, [MS] * 20 + [bad], noise_floor=0.01, names=("torch", "ort"))


def test_rounds_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(BadInput, match="hold 19 samples, the row has 20"):
        stats.compare([MS] * 20, [MS] * 20, noise_floor=0.01, rounds=([20], [10, 9]))


def test_the_noise_floor_is_the_t_interval_of_an_aa_run() -> None:
    rounds = [[math.exp(shift)] * 5 for shift in (0.01, -0.01, 0.01, -0.01)]
    spread = 0.01 * math.sqrt(4 / 3)
    assert stats.noise_floor(rounds) == pytest.approx(math.expm1(12.9240 * spread), rel=1e-4)
    assert stats.noise_floor(rounds[:3]) is None
    two_a_side, four_a_side = (stats.noise_floor(rounds * 2, per_cell=n) for n in (2, 4))
    assert two_a_side is not None
    assert four_a_side is not None
    assert math.log1p(two_a_side) == pytest.approx(math.sqrt(2) * math.log1p(four_a_side))
    with pytest.raises(BadInput, match="no samples"):
        stats.noise_floor([*rounds, []])


def test_a_cache_shows_in_repeated_inputs() -> None:
    rng = np.random.default_rng(0)
    fresh = rng.normal(10 * MS, 10_000, 40)
    assert stats.caching(fresh, fresh * 0.97) is None
    warning = stats.caching(fresh, fresh * 0.5)
    assert warning is not None
    assert "2.00× faster" in warning
