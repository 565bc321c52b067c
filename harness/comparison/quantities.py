"""Limits as people write them: ``+5%``, ``-0.5``, ``50ms``, ``4MB``, in one grammar for all."""

from __future__ import annotations

import re
from typing import NamedTuple

from harness.errors import BadInput

TIMES = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
SIZES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_NUMBER = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[A-Za-zµ%]*)")


class Quantity(NamedTuple):
    """A number with its unit. ``signed`` tells a change, ``+5``, from a value, ``5``."""

    value: float
    unit: str
    signed: bool


def parse(text: str, where: str) -> Quantity:
    """Read a number and its unit.

    Raises:
        BadInput: not a number, or an unknown unit.
    """
    match = _NUMBER.fullmatch(text.strip().replace("−", "-").replace("μ", "µ"))
    known = {*TIMES, *SIZES, "%", ""}
    if match is None or match["unit"] not in known:
        raise BadInput(
            f"{where}: '{text.strip()}' is not a number with a unit: write for example 50ms, 4MB,"
            " +5% or -0.5"
        )
    value = float(match["number"])
    return Quantity(-value if match["sign"] == "-" else value, match["unit"], bool(match["sign"]))


def positive_ns(text: str, where: str) -> float:
    """A duration above 0 in nanoseconds. Raises BadInput."""
    return _positive(text, where, TIMES, "50ms")


def positive_bytes(text: str, where: str) -> float:
    """A size above 0 in bytes. Raises BadInput."""
    return _positive(text, where, SIZES, "4MB")


def _positive(text: str, where: str, units: dict[str, float], example: str) -> float:
    found = parse(text, where)
    if found.unit not in units:
        raise BadInput(
            f"{where}: '{text.strip()}' needs one of the units {', '.join(units)}:"
            f" write for example {example}"
        )
    if found.value <= 0:
        raise BadInput(f"{where}: '{text.strip()}' is not above 0: write for example {example}")
    return found.value * units[found.unit]
