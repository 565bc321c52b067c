"""Reading the clock: its resolution, one timed interval, and what must not happen meanwhile."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from harness.errors import DetbenchError

Clock = Callable[[], int]


def resolution_ns(clock: Clock = time.perf_counter_ns, reads: int = 2000) -> int:
    """The least time that ``clock`` can tell: the median of its steps between readings.

    Raises:
        DetbenchError: it stands still.
    """
    steps: list[int] = []
    before = clock()
    for _ in range(1000 * reads):
        now = clock()
        if now > before:
            steps.append(now - before)
            if len(steps) == reads:
                break
        before = now
    if not steps:
        raise DetbenchError("the clock stands still: this machine cannot time anything")
    return round(median(steps))


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now and not inside; whether collection was on is restored."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def until(count: int, seconds: float, clock: Clock) -> Iterator[int]:
    """0, 1, 2 … until both the count and the duration hold."""
    end = clock() + round(seconds * 1e9)
    for number in itertools.count():
        if number >= count and clock() >= end:
            return
        yield number


def interval(
    call: Callable[[int], object], slots: tuple[int, ...], clock: Clock
) -> tuple[int, object]:
    """Time of one call per slot, and what the last one answered."""
    output: object = None
    if len(slots) == 1:
        slot = slots[0]
        start = clock()
        output = call(slot)
        end = clock()
    else:
        start = clock()
        for slot in slots:
            output = call(slot)
        end = clock()
    return elapsed(start, end), output


def elapsed(start: int, end: int) -> int:
    """Nanoseconds between two readings of the clock. Raises DetbenchError where it went back."""
    if end < start:
        raise DetbenchError(
            f"the clock went back by {start - end} ns during a timed call: its time is not known,"
            " so measure again on a machine whose clock is monotonic"
        )
    return end - start
