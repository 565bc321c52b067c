"""Memory of this process: what is resident now, and its peak since a baseline.

On Linux the peak is ``VmHWM`` of ``/proc/self/status`` and not ``ru_maxrss``: the kernel carries
the latter over from the parent through fork and exec, so that a small child of a parent with
500 MB seems to have used 500 MB. Where the kernel allows it, the peak is set back when the baseline
is taken, so that an import that needed much for a moment does not hide what a runtime needs.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


class Baseline(NamedTuple):
    """Memory before the part that is measured, in bytes."""

    resident_bytes: int
    peak_bytes: int | None


def resident_bytes() -> int:
    """Resident set of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int | None:
    """Largest resident set of this process so far; None where it cannot be read."""
    try:
        status = STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return _peak_of_getrusage()
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def baseline() -> Baseline:
    """Call it when all is imported and before the model is opened."""
    with contextlib.suppress(OSError):  # an old or a locked kernel: `peak_above` sees to it
        CLEAR_REFS.write_text("5", encoding="ascii")  # 5: set the peak back to what is resident
    return Baseline(resident_bytes(), peak_bytes())


def peak_above(start: Baseline) -> int | None:
    """Bytes that the peak since ``start`` lies above what was resident then.

    None where that cannot be told: the peak is unreadable, or it is an older one that was not
    reached again.
    """
    peak = peak_bytes()
    if peak is None or start.peak_bytes is None:
        return None
    if peak <= start.peak_bytes and start.peak_bytes > start.resident_bytes * 1.01:
        return None
    return max(0, peak - start.resident_bytes)


def _peak_of_getrusage() -> int | None:
    """In bytes on macOS, in KiB elsewhere."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
