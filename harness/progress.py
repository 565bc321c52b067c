"""Progress of long work on standard error: what is being done and how long it will take.

Said when a step begins or ends and at no other time: nothing wakes up while a cell is timed.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator


class Progress:
    """A line a step, with the share done and the estimated time left. ``quiet`` prints nothing."""

    def __init__(self, expected_s: float, *, quiet: bool = False) -> None:
        self._expected_s = max(expected_s, 1.0)
        self._started = time.monotonic()
        self._quiet = quiet
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step; on its end say how long it took."""
        began = time.monotonic()
        self._say(f"{title} …")
        yield
        self._say(f"{title}: {time.monotonic() - began:.1f} s")

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        spent = time.monotonic() - self._started
        left = self._expected_s - spent
        eta = f"about {clock(left)} left" if left > 0 else "over the estimate"
        with self._lock:
            print(f"[{clock(spent)}, {eta}] {text}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """``3:05`` or ``1:02:03``."""
    whole = round(max(seconds, 0))
    hours, minutes = divmod(whole // 60, 60)
    tail = f"{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
    return f"{hours}:{tail}" if hours else tail
