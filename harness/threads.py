"""How many threads a runtime really uses: counted, not believed.

The CPU time of every thread of this process is read before and after a burst of calls. A thread
counts when it worked for at least 20 % of the time of the busiest one: a pool's workers that share
the calls come close to it, helpers that log or wait do not. Linux and psutil tell CPU time in ticks
of 10 ms, so a burst lasts long enough for the busiest thread to use ten of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import psutil

COUNTS_FROM = 0.20
LEAST_CPU_SECONDS = 0.1
TICK_ERROR_SECONDS = 0.02
"""User and system time of a thread are each cut off at a tick."""
MOST_STRETCH = 10
"""A burst ends at this multiple of the asked time at the latest, however little CPU it used."""


def threads_used(call: Callable[[], object], seconds: float = 0.3) -> int | None:
    """How many threads of this process work while ``call`` runs again and again.

    Never run it while timing: it reads ``/proc`` between calls.

    Args:
        call: one inference.
        seconds: least duration of the burst; it is stretched until the counting is sure.

    Returns:
        None where it cannot be told: threads are unreadable, the calls use hardly any CPU (an
        accelerator or a sleep), or much of the work was done by threads that ended meanwhile.
    """
    before = _cpu_seconds_by_thread()
    if before is None:
        return None
    spent_before, start = time.process_time(), time.monotonic()
    while True:
        call()
        elapsed = time.monotonic() - start
        if elapsed < seconds:
            continue
        after = _cpu_seconds_by_thread()
        if after is None:
            return None
        spent = time.process_time() - spent_before
        worked = _worked(before, after)
        if max(worked, default=0.0) >= LEAST_CPU_SECONDS or elapsed >= MOST_STRETCH * seconds:
            return count(worked, spent)


def count(worked: list[float], spent: float) -> int | None:
    """Threads that count, from the CPU seconds of each and of the whole process.

    None where the busiest thread used too little to tell, or where threads that are gone used as
    much as one that counts.
    """
    busiest = max(worked, default=0.0)
    rounding = TICK_ERROR_SECONDS * sum(seconds > 0 for seconds in worked)
    gone = spent - sum(worked) - rounding
    if busiest < LEAST_CPU_SECONDS or gone >= COUNTS_FROM * busiest:
        return None
    return sum(seconds >= COUNTS_FROM * busiest for seconds in worked)


def _worked(before: Mapping[int, float], after: Mapping[int, float]) -> list[float]:
    return [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]


def _cpu_seconds_by_thread() -> dict[int, float] | None:
    try:
        threads = psutil.Process().threads()
    except (psutil.Error, OSError):  # macOS lets only root read them
        return None
    return {thread.id: thread.user_time + thread.system_time for thread in threads}
