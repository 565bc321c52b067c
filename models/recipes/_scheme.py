"""How numbers are made integers: the options that recipes share, without torch.

Every option left out is the preset's:

- ``int8``: as the int8 exports do. Weights 8 bits, symmetric, per output channel, by their
  extremes; activations 8 bits, asymmetric, per tensor, by the least squared error.
- ``aimet``: as AIMET's model zoo publishes its results (https://github.com/quic/aimet-model-zoo).
  Weights and activations 8 bits, asymmetric, per tensor, by the least squared error
  ("tf_enhanced"); biases stay float. Their recipe also equalises and rounds by AdaRound:
  ``equalize+adaround:aimet+quantsim:aimet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from harness.errors import BadConfig
from harness.ranges import METHODS
from harness.records import Options, Scalar


class Scheme(NamedTuple):
    """How one kind of numbers becomes integers.

    Attributes:
        bits: so many integers stand for the range, 2 ** bits of them or one less.
        per_channel: each output channel has a range of its own.
        symmetric: zero is in the middle and is the integer 0.
        ranges: which range is represented, one of `harness.ranges.METHODS`; of weights, too few
            for a histogram in each channel, one of `WEIGHT_RANGES`.
    """

    bits: int
    per_channel: bool
    symmetric: bool
    ranges: str


PRESETS: dict[str, tuple[Scheme, Scheme]] = {
    "int8": (Scheme(8, True, True, "minmax"), Scheme(8, False, False, "mse")),
    "aimet": (Scheme(8, False, False, "mse"), Scheme(8, False, False, "mse")),
}
"""Weights and activations of each preset."""

WEIGHT_OPTIONS: Options = {
    "preset": "int8",
    "weights": None,
    "per_channel": None,
    "symmetric": None,
    "ranges": None,
}
ACTIVATION_OPTIONS: Options = {
    "activations": None,
    "symmetric_activations": None,
    "activation_ranges": None,
}
WEIGHT_RANGES = ("minmax", "percentile", "mse")
MOST_WEIGHT_BITS, MOST_ACTIVATION_BITS = 8, 16


def weight_scheme(recipe: str, options: Mapping[str, Scalar]) -> Scheme:
    """What `WEIGHT_OPTIONS` ask for. Raises BadConfig."""
    default = _preset(recipe, options)[0]
    return Scheme(
        _bits(recipe, "weights", options, default.bits, 2, MOST_WEIGHT_BITS),
        _truth(recipe, "per_channel", options, default.per_channel),
        _truth(recipe, "symmetric", options, default.symmetric),
        _ranges(recipe, "ranges", options, default.ranges, WEIGHT_RANGES),
    )


def activation_scheme(recipe: str, options: Mapping[str, Scalar]) -> Scheme:
    """What `ACTIVATION_OPTIONS` ask for. Raises BadConfig."""
    default = _preset(recipe, options)[1]
    return Scheme(
        _bits(recipe, "activations", options, default.bits, 4, MOST_ACTIVATION_BITS),
        False,
        _truth(recipe, "symmetric_activations", options, default.symmetric),
        _ranges(recipe, "activation_ranges", options, default.ranges, METHODS),
    )


def whole(recipe: str, key: str, options: Mapping[str, Scalar], low: int, high: int) -> int:
    """A whole number among a recipe's options. Raises BadConfig."""
    value = options[key]
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise BadConfig(f"recipe {recipe} got {key}={value}: give a whole number from {low} to {high}")


def choice(recipe: str, key: str, options: Mapping[str, Scalar], allowed: tuple[str, ...]) -> str:
    """A word among a recipe's options. Raises BadConfig."""
    value = options[key]
    if value in allowed:
        return str(value)
    raise BadConfig(f"recipe {recipe} has no {key}={value}: give {' or '.join(allowed)}")


def _preset(recipe: str, options: Mapping[str, Scalar]) -> tuple[Scheme, Scheme]:
    return PRESETS[choice(recipe, "preset", options, tuple(PRESETS))]


def _bits(
    recipe: str, key: str, options: Mapping[str, Scalar], default: int, low: int, high: int
) -> int:
    return default if options[key] is None else whole(recipe, key, options, low, high)


def _truth(recipe: str, key: str, options: Mapping[str, Scalar], default: bool) -> bool:
    value = default if options[key] is None else options[key]
    if isinstance(value, bool):
        return value
    raise BadConfig(f"recipe {recipe} got {key}={value}: give true or false")


def _ranges(
    recipe: str,
    key: str,
    options: Mapping[str, Scalar],
    default: str,
    allowed: tuple[str, ...],
) -> str:
    return default if options[key] is None else choice(recipe, key, options, allowed)
