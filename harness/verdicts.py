"""What a comparison of two sets of timings answers, in figures and in words."""

from __future__ import annotations

import math
from typing import Literal

from harness.records import Record

Outcome = Literal["faster", "slower", "indistinguishable", "cannot tell"]


class Verdict(Record, frozen=True, kw_only=True):
    """How ``b`` compares with ``a``.

    ``ratio`` is the median of ``b`` over that of ``a`` with a 95 % interval; ``needed`` is how far
    from 1 it has to be, as a share: 0.01 asks for above 1.01 or below 1 / 1.01.
    """

    outcome: Outcome
    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    needed: float | None
    sentence: str


def cannot_tell(why: str) -> Verdict:
    """The verdict where there is none, with the reason."""
    return Verdict(
        outcome="cannot tell",
        ratio=None,
        low=None,
        high=None,
        p=None,
        needed=None,
        sentence=f"cannot tell: {why}",
    )


def decide(
    logs: tuple[float, float, float],
    *,
    bar: float,
    p: float,
    significant: float,
    names: tuple[str, str],
) -> Verdict:
    """Faster or slower where ``p`` is below ``significant`` and the shift lies beyond ``bar``.

    Args:
        logs: the logarithm of the ratio, and of both ends of its 95 % interval.
        bar: on the same scale.
    """
    shift = logs[0]
    outcome: Outcome = "indistinguishable"
    if p < significant and abs(shift) > bar:
        outcome = "slower" if shift > 0 else "faster"
    ratio, low, high = map(math.exp, logs)
    least = math.expm1(bar)
    return Verdict(
        outcome=outcome,
        ratio=ratio,
        low=low,
        high=high,
        p=p,
        needed=least,
        sentence=_sentence(outcome, names, (ratio, low, high), p, least),
    )


def _sentence(
    outcome: Outcome,
    names: tuple[str, str],
    shift: tuple[float, float, float],
    p: float,
    least: float,
) -> str:
    """``B is 1.20× slower than A (95 % interval 1.15–1.25, p = 1e-09, noise below 3.0 %)``."""
    ratio, low, high = shift
    if outcome == "faster":
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    evidence = f"95 % interval {low:.3f}–{high:.3f}, p = {p:.1g}, noise up to {least:.1%}"
    if outcome == "indistinguishable":
        return f"{names[1]} and {names[0]} are indistinguishable: ratio {ratio:.3f} ({evidence})"
    return f"{names[1]} is {ratio:.2f}× {outcome} than {names[0]} ({evidence})"
