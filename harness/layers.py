"""Where an artifact's numbers leave the float network's: layer by layer, on the same images.

A layer is a convolution with the activation that runtimes compute together with it. Runners show
what it answers (`harness.interfaces.Runner.trace`) by the name that it has in the network and laid
out alike; so files of different runtimes are compared name by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import ParityFailed
from harness.parity import decibels

BAD_DB = 15.0
"""A layer below this is bad: the SQNR that `harness.parity` asks of int8 logits."""
FALL_DB = 3.0
"""A layer that loses as much against the one before it, half the quality, is worth keeping."""

Values = Mapping[str, NDArray[Any]]
"""Outputs of layers by name, (1, channels, height, width), real values."""


class Suggestion(NamedTuple):
    """What a table of layers means.

    Attributes:
        first_bad: the first layer below `BAD_DB`; None where there is none.
        keep: layers to try in float, the one that loses most first.
    """

    first_bad: str | None
    keep: tuple[str, ...]


def compare_layers(reference: Iterable[Values], got: Iterable[Values]) -> dict[str, float]:
    """SQNR in dB of each layer that both have, over all images, in the reference's order.

    Raises:
        ParityFailed: they have no layer in common, or one has another shape.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for expected, found in zip(reference, got, strict=True):
        for name, values in expected.items():
            if name not in found:
                continue
            if found[name].shape != values.shape:
                raise ParityFailed(
                    f"layer {name} has shape {found[name].shape}, the float network's"
                    f" {values.shape}: compare exports of the same model"
                )
            one = values.astype(np.float64)
            signal[name] = signal.get(name, 0.0) + float(np.square(one).sum())
            noise[name] = noise.get(name, 0.0) + float(np.square(found[name] - one).sum())
    if not signal:
        raise ParityFailed(
            "the artifacts have no layer in common: compare exports of the same model"
        )
    return {name: decibels(signal[name], noise[name]) for name in signal}


def suggest(sqnr_db: Mapping[str, float]) -> Suggestion:
    """The first bad layer, and what to keep in float.

    Layers are sorted by what they lose against the layer before; those that lose less than
    `FALL_DB` are left out, unless a layer is bad: then the worst fall is named whatever it is.
    """
    first_bad = next((name for name, value in sqnr_db.items() if value < BAD_DB), None)
    falls = ranked(sqnr_db)
    keep = [name for name, fall in falls if fall >= FALL_DB]
    if first_bad is not None and not keep:
        keep = [falls[0][0]]
    return Suggestion(first_bad, tuple(keep))


def ranked(sqnr_db: Mapping[str, float]) -> list[tuple[str, float]]:
    """Every layer with what it loses against the layer before, in dB, the largest loss first."""
    values = list(sqnr_db.items())
    best = max(value for _, value in values)
    falls = [(values[0][0], best - values[0][1])]
    falls += [(name, before - value) for (_, before), (name, value) in pairwise(values)]
    return sorted(falls, key=lambda item: -item[1])
