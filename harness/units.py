"""Quantities as people write them: camera rates and durations."""

from __future__ import annotations

import math
import re

from harness.errors import BadConfig

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
RATES = ("fps", "/s", "hz")


def parse_period_ns(text: str, where: str) -> int:
    """Time from one image to the next: ``30fps``, ``30/s``, ``30Hz`` or ``33ms``, in nanoseconds.

    Raises:
        BadConfig: no such quantity, or not above 0; ``where`` names what was given.
    """
    number, unit = _split(text)
    if unit.lower() in RATES and number > 0:
        return round(1e9 / number)
    if unit in SECONDS and number > 0:
        return round(number * SECONDS[unit] * 1e9)
    raise BadConfig(
        f"{where} '{text}' is neither a rate nor a period: write for example 30fps, 30/s or 33ms"
    )


def parse_seconds(text: str, where: str) -> float:
    """A duration such as ``10min``, ``90s`` or ``1h``, in seconds.

    Raises:
        BadConfig: no such quantity, or not above 0; ``where`` names what was given.
    """
    number, unit = _split(text)
    if unit not in SECONDS or number <= 0:
        raise BadConfig(f"{where} '{text}' is no duration: write for example 10min, 90s or 1h")
    return number * SECONDS[unit]


def _split(text: str) -> tuple[float, str]:
    """Number and unit; (0, "") where there is no finite number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([^\d\s]+)\s*", text)
    number = float(match[1]) if match else 0.0
    return (number, match[2]) if match and math.isfinite(number) else (0.0, "")
