"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.evidence import facts, moment
from harness.report.figures import (
    count,
    duration,
    listing,
    megabytes,
    milliseconds,
    percent,
    signed_points,
    significant,
)
from harness.report.render import escape_markdown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (8.312, "8.31"),
        (9.999, "10.0"),
        (0.0995, "0.0995"),
        (0.09996, "0.100"),
        (99.95, "100"),
        (1234.4, "1,234"),
        (-4.5678, "−4.57"),
        (1e-7, "0.000000100"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "not a number"),
    ],
)
def test_three_significant_digits(value: float, shown: str) -> None:
    assert significant(value) == shown


@settings(deadline=None)
@given(st.floats(min_value=1e-6, max_value=1e12))
def test_significant_digits_stay_within_half_a_percent(value: float) -> None:
    shown = float(significant(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.00502)


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (12, "12.0 ns"),
        (95_000, "95.0 µs"),
        (8_310_000, "8.31 ms"),
        (2_100_000_000, "2.10 s"),
        (210e9, "3.5 min"),
        (0, "0 ns"),
    ],
)
def test_durations_choose_their_unit(ns: float, shown: str) -> None:
    assert duration(ns) == shown


def test_fixed_units() -> None:
    assert milliseconds(8_312_000) == "8.31"
    assert megabytes(3_900_000) == "3.90"
    assert percent(0.84123) == "84.1"


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(-0.0043, "−0.4"), (0.01, "+1.0"), (0.0, "0.0"), (-0.0001, "0.0"), (0.0004, "0.0")],
)
def test_points_have_a_sign_unless_they_are_nothing(fraction: float, shown: str) -> None:
    assert signed_points(fraction) == shown


def test_counts_and_lists() -> None:
    assert count(1, "cell") == "1 cell"
    assert count(1024, "cell") == "1,024 cells"
    assert count(2, "point has", "points have") == "2 points have"
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_nested_facts_become_pairs_with_units() -> None:
    given_facts = {
        "id": "m",
        "memory_bytes": 25_276_502_016,
        "caches_bytes": {"L1d": 32_768},
        "governor": None,
        "turbo": False,
        "features": ["avx", "fma"],
    }
    assert facts(given_facts) == [
        ("id", "m"),
        ("memory", "23.5 GiB"),
        ("caches › L1d", "32.0 KiB"),
        ("governor", "not known"),
        ("turbo", "no"),
        ("features", "avx, fma"),
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-20T18:57:31+00:00", "2026-11-20 18:57 UTC"),
        ("2026-11-20T18:57:31+02:00", "2026-11-20 16:57 UTC"),
        ("2026-11-20T18:57", "2026-11-20 18:57"),
        ("yesterday", "yesterday"),
    ],
)
def test_moments(text: str, shown: str) -> None:
    assert moment(text) == shown


def test_markdown_is_shown_as_it_is_written() -> None:
    assert escape_markdown("a|b *c* `d` [e](f)\n<g> & h\\") == (
        r"a\|b \*c\* \`d\` \[e\](f) &lt;g> &amp; h" + "\\\\"
    )
