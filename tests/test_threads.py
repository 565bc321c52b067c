"""Threads are counted under load, memory is read of this process: planted work for both."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness import memory, threads
from harness.threads import threads_used, working

BLOCK = bytes(16_000_000)
"""So much that counting, which the calling thread does between calls, is little beside it."""


@contextmanager
def pool_call(workers: int) -> Iterator[Callable[[], object]]:
    """One "inference" that shares its work over ``workers`` threads; hashlib frees the GIL."""
    with ThreadPoolExecutor(workers) as pool:
        yield lambda: list(pool.map(lambda _: hashlib.sha256(BLOCK).digest(), range(workers)))


def eventually(expected: int | None, measure: Callable[[], int | None]) -> None:
    """Up to three tries: on a machine in full use a thread may get no core for a whole burst."""
    seen = []
    for _ in range(3):
        seen.append(measure())
        if seen[-1] == expected:
            return
    pytest.fail(f"counted {seen} threads, planted {expected}")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_planted_threads_are_counted(workers: int) -> None:
    with pool_call(workers) as call:
        eventually(workers, lambda: threads_used(call))


def test_the_calling_thread_counts_when_it_works() -> None:
    eventually(1, lambda: threads_used(lambda: hashlib.sha256(BLOCK).digest()))


def test_a_thread_that_waits_does_not_count() -> None:
    done = threading.Event()
    waiting = threading.Thread(target=done.wait)
    waiting.start()
    try:
        eventually(1, lambda: threads_used(lambda: hashlib.sha256(BLOCK).digest()))
    finally:
        done.set()
        waiting.join()


def test_a_call_that_sleeps_cannot_be_told() -> None:
    assert threads_used(lambda: time.sleep(0.01), seconds=0.02) is None


def test_threads_that_live_for_one_call_cannot_be_told() -> None:
    def call() -> None:
        made = [threading.Thread(target=lambda: hashlib.sha256(BLOCK).digest()) for _ in range(2)]
        for thread in made:
            thread.start()
        for thread in made:
            thread.join()

    assert threads_used(call, seconds=0.1) is None


def test_unreadable_threads_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: object) -> object:
        raise psutil.AccessDenied

    monkeypatch.setattr(threads.psutil.Process, "threads", denied)
    assert threads_used(lambda: None, seconds=0.01) is None


@pytest.mark.parametrize(
    ("worked", "spent", "expected"),
    [
        ([1.0], 1.0, 1),
        ([1.0, 0.9, 0.95, 0.1], 2.95, 3),
        ([1.0, 0.2], 1.2, 2),
        ([1.0, 0.19], 1.19, 1),
        ([0.09, 0.09], 0.18, None),
        ([0.5, 0.5], 1.6, None),
        ([0.3] * 8, 2.52, 8),
        ([], 0.0, None),
    ],
)
def test_the_rule_of_counting(worked: list[float], spent: float, expected: int | None) -> None:
    found = working(dict(enumerate(worked)), spent)
    assert (found if found is None else len(found)) == expected


def test_a_thread_that_another_library_left_spinning_does_not_count() -> None:
    """As numpy's BLAS does for 30 ms after a product: here for 150 ms, beyond the pause."""
    spinning = threading.Thread(target=_spin, args=(time.monotonic() + 0.15,))
    spinning.start()
    eventually(1, lambda: threads_used(lambda: hashlib.sha256(BLOCK).digest()))
    spinning.join()


def _spin(end: float) -> None:
    while time.monotonic() < end:
        hashlib.sha256(BLOCK[:100_000]).digest()


def test_threads_that_may_leave_the_allowed_cores_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    assert threads.strays(allowed) == 0
    assert threads.strays([]) == psutil.Process().num_threads()


def test_memory_that_was_used_for_a_moment_is_in_the_peak() -> None:
    start = memory.baseline()
    block = bytearray(50_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
    above = memory.peak_above(start)
    assert above is not None
    assert 45_000_000 < above < 80_000_000


def test_a_child_is_not_charged_with_its_parent_s_memory() -> None:
    """``ru_maxrss`` is, on Linux: the planted parent holds 200 MB when it starts the child."""
    child = "from harness.memory import peak_bytes; print(peak_bytes())"
    parent = (
        "import subprocess, sys\n"
        "block = bytearray(200_000_000); block[::4096] = b'x' * len(block[::4096])\n"
        f"print(subprocess.check_output([sys.executable, '-c', {child!r}], text=True))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, check=True
    )
    assert 1_000_000 < int(answer.stdout) < 150_000_000


def test_an_old_peak_that_is_not_reached_again_tells_nothing() -> None:
    now = memory.resident_bytes()
    assert memory.peak_above(memory.Baseline(now, now * 100)) is None
    assert memory.peak_above(memory.Baseline(now, None)) is None


def test_without_proc_the_peak_comes_from_getrusage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "absent")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "absent" / "absent")
    peak = memory.peak_bytes()
    assert peak is not None
    assert peak >= memory.resident_bytes() * 0.5
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    in_bytes = memory.peak_bytes()
    assert in_bytes is not None
    assert peak == pytest.approx(in_bytes * 1024, rel=0.01)


def test_a_status_without_a_peak_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmRSS:\t 10 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    assert memory.peak_bytes() is None
