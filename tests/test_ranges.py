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
