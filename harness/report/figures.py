"""Numbers as people read them: three significant digits, units said, true minus signs."""

from __future__ import annotations

import math

NS_PER_MS = 1e6
BYTES_PER_MB = 1e6
BLANK = "–"


def significant(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, never in scientific notation: 8.31, 1,234."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "not a number"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, places)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        places = max(0, places - 1)  # 9.999 became 10.00
    return minus(f"{rounded:,.{places}f}")


def minus(text: str) -> str:
    """``text`` with a true minus sign."""
    return text.replace("-", "−")


def milliseconds(ns: float) -> str:
    """Nanoseconds in milliseconds, without the unit."""
    return significant(ns / NS_PER_MS)


def duration(ns: float) -> str:
    """Nanoseconds with the unit that fits: ``8.31 ms``, ``95.0 µs``, ``2.10 s``, ``3.5 min``."""
    for limit, unit, size in (
        (1e3, "ns", 1.0),
        (1e6, "µs", 1e3),
        (1e9, "ms", 1e6),
        (9e10, "s", 1e9),
    ):
        if abs(ns) < limit:
            return f"{significant(ns / size)} {unit}"
    return f"{ns / 6e10:,.1f} min"


def megabytes(size_bytes: float) -> str:
    """Bytes in MB of 1,000,000 bytes, without the unit."""
    return significant(size_bytes / BYTES_PER_MB)


def percent(fraction: float) -> str:
    """A fraction in per cent with one decimal, without the sign: mAP 0.8412 is ``84.1``."""
    return minus(f"{100 * fraction:.1f}")


def signed_points(fraction: float) -> str:
    """A difference of two fractions in percentage points: ``−0.4``, ``+1.0``, ``0.0``."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else minus(text)


def count(number: float, noun: str, plural: str | None = None) -> str:
    """``1 cell``, ``1,024 cells``."""
    word = noun if number == 1 else plural or f"{noun}s"
    return f"{number:,.0f} {word}"


def listing(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
