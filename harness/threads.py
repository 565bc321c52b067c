"""How many threads a runtime really uses: counted, not believed.

The CPU time of every thread of this process is read before and after a burst of calls. A thread
counts when it worked for at least 20 % of the time of the busiest one: a pool's workers that share
the calls come close to it, helpers that log or wait do not. Linux and psutil tell CPU time in ticks
of 10 ms, so a burst lasts long enough for the busiest thread to use fifteen of them.

A thread that another library left spinning is not the runtime's: numpy's BLAS keeps its worker
turning for some 30 ms after a product, which in a short burst looks like a third thread beside two.
So the count begins after a pause, and only what works in each of two bursts counts (in the one that
could be told, where the other could not).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

import psutil

COUNTS_FROM = 0.20
LEAST_CPU_SECONDS = 0.15
TICK_ERROR_SECONDS = 0.02
"""User and system time of a thread are each cut off at a tick."""
MOST_STRETCH = 10
"""A burst ends at this multiple of the asked time at the latest, however little CPU it used."""
PAUSE_SECONDS = 0.1


def threads_used(call: Callable[[], object], seconds: float = 0.25) -> int | None:
    """How many threads of this process work while ``call`` runs again and again.

    Never run it while timing: it reads ``/proc`` between calls.

    Args:
        call: one inference.
        seconds: least duration of each burst; it is stretched until the counting is sure.

    Returns:
        None where it cannot be told: threads are unreadable, the calls use hardly any CPU (an
        accelerator or a sleep), or much of the work was done by threads that ended meanwhile.
    """
    time.sleep(PAUSE_SECONDS)
    bursts = [_burst(call, seconds), _burst(call, seconds)]
    known = [found for found in bursts if found is not None]
    return len(frozenset.intersection(*known)) if known else None


def working(worked: Mapping[int, float], spent: float) -> frozenset[int] | None:
    """Threads that count, from the CPU seconds of each and of the whole process.

    None where the busiest thread used too little to tell, or where threads that are gone used as
    much as one that counts.
    """
    busiest = max(worked.values(), default=0.0)
    rounding = TICK_ERROR_SECONDS * sum(seconds > 0 for seconds in worked.values())
    gone = spent - sum(worked.values()) - rounding
    if busiest < LEAST_CPU_SECONDS or gone >= COUNTS_FROM * busiest:
        return None
    return frozenset(t for t, seconds in worked.items() if seconds >= COUNTS_FROM * busiest)


def strays(allowed: Iterable[int]) -> int:
    """How many threads of this process may run on other logical cores than ``allowed``.

    0 where that cannot be read.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    within, found = set(allowed), 0
    for thread in _cpu_seconds_by_thread() or {}:
        try:
            found += not os.sched_getaffinity(thread) <= within
        except OSError:  # it ended meanwhile
            continue
    return found


def _burst(call: Callable[[], object], seconds: float) -> frozenset[int] | None:
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
        worked = {thread: cpu - before.get(thread, 0.0) for thread, cpu in after.items()}
        enough = max(worked.values(), default=0.0) >= LEAST_CPU_SECONDS
        if enough or elapsed >= MOST_STRETCH * seconds:
            return working(worked, spent)


def _cpu_seconds_by_thread() -> dict[int, float] | None:
    try:
        threads = psutil.Process().threads()
    except (psutil.Error, OSError):  # macOS lets only root read them
        return None
    return {thread.id: thread.user_time + thread.system_time for thread in threads}
