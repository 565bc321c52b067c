"""Whether this process runs on a processor that a program emulates.

Such a process computes what a real one would, in another time: parity and accuracy can be measured
in it, durations mean nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

SHOWN = "/proc/self/exe"
REAL = "/proc/thread-self/exe"
"""User-mode QEMU answers the emulated program for the first, and itself for the second."""


def emulator() -> str | None:
    """``qemu-aarch64`` where user-mode QEMU runs this process; None where nothing is noticed."""
    try:
        shown, real = os.readlink(SHOWN), os.readlink(REAL)
    except OSError:  # no Linux, or no /proc
        return None
    return None if shown == real else Path(real).name.removesuffix("-static")
