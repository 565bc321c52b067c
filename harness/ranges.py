"""Which range of numbers is represented when they become integers, from what was seen of them.

- ``minmax``: all that was seen.
- ``percentile``: without the outermost 0.01 % on each side (Wu et al. 2020, arXiv 2004.09602).
- ``entropy``: what loses least information, by the Kullback-Leibler divergence of two histograms
  (Migacz 2017, "8-bit inference with TensorRT").
- ``mse``: what has the least squared error, rounding and cutting off together (Banner et al. 2019,
  arXiv 1810.05723; AIMET calls the like "tf_enhanced").

All but ``minmax`` look at parts of the whole range that keep the proportion of its two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SAMPLES = 512
"""Values of each tensor that are remembered per image, drawn with replacement."""

SHRINKS = np.geomspace(0.001, 1.0, 49)
"""Parts of the observed range that are tried: steps of 15 %."""

OUTSIDE = 1e-4
"""What ``percentile`` leaves out on each side."""

BINS = 512
"""Of the histograms that ``entropy`` compares: few, because with more the chance in the samples
would look like information, and cutting off like none."""


@dataclass
class Observed:
    """What was seen of one tensor: its extremes, zero included, and some of its values."""

    low: float = 0.0
    high: float = 0.0
    samples: list[NDArray[np.float32]] = field(default_factory=list)

    def see(self, values: NDArray[np.float32], generator: np.random.Generator) -> None:
        """Add one image's values."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        flat = values.reshape(-1)
        self.samples.append(flat[generator.integers(0, flat.size, SAMPLES)])


Span = tuple[float, float]


def choose(
    group: Sequence[Observed], method: str = "mse", *, steps: int = 255, symmetric: bool = False
) -> Span:
    """The range that all tensors of ``group`` share, zero included; never empty.

    Args:
        method: one of `METHODS`.
        steps: integers that stand for the range, less one.
        symmetric: both ends are equally far from zero.
    """
    low = min(observed.low for observed in group)
    high = max(observed.high for observed in group)
    if symmetric:
        high = max(-low, high)
        low = -high
    # (images, samples)
    values = np.concatenate([np.stack(observed.samples) for observed in group], axis=1)
    if low == high or not values.any():
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    return METHODS_OF[method](values, (low, high), steps)


def _extremes(_values: NDArray[np.float32], span: Span, _steps: int) -> Span:
    return span


def _percentile(values: NDArray[np.float32], span: Span, _steps: int) -> Span:
    low = float(np.quantile(values, OUTSIDE, method="lower"))
    high = float(np.quantile(values, 1 - OUTSIDE, method="higher"))
    if span[0] == -span[1]:  # symmetric
        low, high = -max(-low, high), max(-low, high)
    low, high = max(span[0], min(low, 0.0)), min(span[1], max(high, 0.0))
    return (low, high) if low < high else span


def _closest(values: NDArray[np.float32], span: Span, steps: int) -> Span:
    """The least squared error, in each image relative to the image's own mean square.

    Cutting a rare outlier off costs less than coarser steps for everything else; and an image on
    which a network answers with numbers a thousand times too large counts as one image, not as
    all. An image that is all zeros is represented by any range.
    """
    energy = np.square(values, dtype=np.float64).mean(axis=1)
    values = values[energy > 0]
    weights = 1.0 / energy[energy > 0]

    def error(part: float) -> float:
        rounded = _rounded(values, (part * span[0], part * span[1]), steps)
        difference = rounded - values
        return float(np.einsum("ij,ij->i", difference, difference).astype(np.float64) @ weights)

    return _best(span, error)


def _entropy(values: NDArray[np.float32], span: Span, steps: int) -> Span:
    counts, edges = np.histogram(values, bins=BINS, range=span)
    centres = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)

    def divergence(part: float) -> float:
        """Of the distribution that integers can tell from the one cut to the range."""
        low, high = part * span[0], part * span[1]
        cut = np.clip(centres, low, high)
        inside = np.unique(cut, return_inverse=True)[1]
        true = np.bincount(inside, weights=counts)
        held = np.bincount(inside, weights=counts * (centres == cut))
        cell = np.rint((np.unique(cut) - low) / (high - low) * steps).astype(np.int64)
        some = true > 0
        share = np.bincount(cell, weights=held) / np.maximum(np.bincount(cell, weights=some), 1)
        told = np.where(some, share[cell], 0.0)
        if not told.any():
            return np.inf
        one, two = true[some] / true.sum(), np.maximum(told[some] / told.sum(), 1e-12)
        return float((one * np.log(one / two)).sum())

    return _best(span, divergence)


def _best(span: Span, cost: Callable[[float], float]) -> Span:
    part = float(SHRINKS[int(np.argmin([cost(float(part)) for part in SHRINKS]))])
    return part * span[0], part * span[1]


def _rounded(values: NDArray[np.float32], span: Span, steps: int) -> NDArray[np.float32]:
    step = np.float32((span[1] - span[0]) / steps)
    cut: NDArray[np.float32] = np.clip(values, np.float32(span[0]), np.float32(span[1]))
    rounded: NDArray[np.float32] = np.rint(cut / step) * step
    return rounded


METHODS_OF: dict[str, Callable[[NDArray[np.float32], Span, int], Span]] = {
    "minmax": _extremes,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _closest,
}
METHODS = tuple(METHODS_OF)
