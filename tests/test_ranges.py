"""Ranges of numbers that become integers, against what is known of the distribution."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.ranges import METHODS, Observed, choose


def seen(*images: NDArray[np.float64]) -> Observed:
    """All values of all images; nothing is drawn."""
    values = [image.astype(np.float32) for image in images]
    return Observed(
        low=min(0.0, *(float(one.min()) for one in values)),
        high=max(0.0, *(float(one.max()) for one in values)),
        samples=values,
    )


def error(values: NDArray[np.float64], span: tuple[float, float], steps: int) -> float:
    step = (span[1] - span[0]) / steps
    rounded = np.rint(np.clip(values, *span) / step) * step
    return float(np.square(rounded - values).mean())


@pytest.fixture(scope="module")
def normal() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(4, 20_000))


def test_minmax_is_everything(normal: NDArray[np.float64]) -> None:
    assert choose([seen(*normal)], "minmax") == pytest.approx((normal.min(), normal.max()))


def test_a_percentile_leaves_one_value_in_ten_thousand_out_on_each_side(
    normal: NDArray[np.float64],
) -> None:
    low, high = choose([seen(*normal)], "percentile")
    for outside in ((normal < low).sum(), (normal > high).sum()):
        assert outside in (7, 8)
    assert choose([seen(*np.abs(normal))], "percentile")[0] == 0


def test_the_least_squared_error_cuts_a_rare_outlier_off(normal: NDArray[np.float64]) -> None:
    values = normal.copy()
    values[0, 0] = 12.0
    minmax, mse = (choose([seen(*values)], method, steps=15) for method in ("minmax", "mse"))
    assert mse[1] < 6 < minmax[1]
    assert error(values, mse, 15) < error(values, minmax, 15) / 2


def test_entropy_cuts_a_long_tail_and_keeps_a_uniform_distribution() -> None:
    uniform = np.linspace(-1, 1, 40_000).reshape(4, -1)
    assert choose([seen(*uniform)], "entropy") == pytest.approx((-1, 1))
    tail = np.random.default_rng(0).exponential(size=(4, 20_000))
    tail[0, 0] = 200.0
    assert choose([seen(*tail)], "entropy")[1] < 100


@pytest.mark.parametrize("method", METHODS)
def test_symmetric_ranges_are_symmetric_and_zeros_have_one(method: str) -> None:
    values = np.random.default_rng(0).exponential(size=(2, 500)) - 0.1
    low, high = choose([seen(*values)], method, steps=254, symmetric=True)
    assert low == -high < 0
    low, high = choose([seen(np.zeros(4))], method)
    assert low <= 0 < high


def test_range_covers_what_is_evenly_spread() -> None:
    values = np.linspace(-1, 3, 2001)
    assert choose([seen(values, values[::-1])]) == pytest.approx((-1, 3))


def test_range_weighs_a_rare_outlier_against_the_steps_of_all_others() -> None:
    values = np.append(np.random.default_rng(0).uniform(0, 1, 100_000), 100.0)
    _, high = choose([seen(values)])
    # Cut at c, it costs (100 - c)^2 once; steps of c / 255 cost each other value c^2 / 780,300.
    assert high == pytest.approx(100 / 1.128, rel=0.1)
    unsampled = Observed(low=0.0, high=100.0, samples=[values[:-1].astype(np.float32)])
    assert choose([unsampled])[1] == pytest.approx(1.0, rel=0.1)


def test_range_is_not_ruined_by_an_image_that_explodes() -> None:
    images = np.random.default_rng(1).uniform(-1, 1, (50, 400))
    images[7] *= 10_000
    low, high = choose([seen(*images)])
    assert high == pytest.approx(10, rel=0.3)  # the finest step of the search is a thousandth
    assert low == pytest.approx(-10, rel=0.3)


def test_range_of_tensors_that_share_a_scale_covers_both() -> None:
    group = [seen(np.linspace(-2, 0, 1001)), seen(np.linspace(0, 5, 1001))]
    assert choose(group) == pytest.approx((-2, 5))


def test_range_of_nothing_but_zeros_has_a_width() -> None:
    low, high = choose([seen(np.zeros(9), np.zeros(9))])
    assert low == 0 < high
