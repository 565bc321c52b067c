"""Which layers must stay in float so that an int8 export keeps its accuracy.

A greedy search: layers are sorted by what they lose against the layer before (`harness.layers`),
and the fewest of the first ones are kept in float with which the drop in mAP is small enough. The
number is doubled until it is, then bisected; every try is exported and scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.trials import Trial


class Found(NamedTuple):
    """``layers`` kept in float, the trial with them, and whether its drop is small ``enough``."""

    layers: tuple[str, ...]
    trial: Trial
    enough: bool


def search(
    first: Trial, ranked: Sequence[str], attempt: Callable[[Sequence[str]], Trial], drop: float
) -> Found:
    """The fewest layers, in their order, that bring the drop down to ``drop``.

    Args:
        first: the export without any layer in float.
        ranked: names of layers, the one that loses most first.
        attempt: exports with these layers in float, and scores.
        drop: 0..1.

    Returns:
        What was found; not ``enough`` where even all layers in float do not bring it down.
    """
    if first.drop <= drop:
        return Found((), first, True)
    few, many, best = 0, 1, None
    while best is None:
        trial = attempt(ranked[:many])
        if trial.drop <= drop:
            best = trial
        elif many == len(ranked):
            return Found(tuple(ranked), trial, False)
        else:
            few, many = many, min(2 * many, len(ranked))
    while many - few > 1:
        middle = (few + many) // 2
        trial = attempt(ranked[:middle])
        if trial.drop <= drop:
            many, best = middle, trial
        else:
            few = middle
    return Found(tuple(ranked[:many]), best, True)
