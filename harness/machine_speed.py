"""How fast the machine computes and moves memory: what a network could reach here at most.

A matrix product in float32 by numpy's BLAS gives operations per second, a copy of more memory than
caches hold gives bytes per second, each in a process of its own with as many threads as asked. The
best sample counts, as STREAM (McCalpin 1995) reports it: what disturbs can only slow down.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from harness.children import THREAD_VARIABLES
from harness.errors import DetbenchError
from harness.records import Record
from harness.registry import ROOT

SIDE = 768
"""Of the matrices: large enough for full speed, 5 ms on a fast core, a second on a slow one."""
COPIED_BYTES = 64 << 20
"""Read, and written once more: beyond the last cache of what runs a detector."""
SECONDS, LEAST = 0.8, 5
TIMEOUT_S = 120


class Speed(Record, frozen=True, kw_only=True):
    """Of the machine with so many threads; every sample is kept.

    Attributes:
        flops_per_s: float32 operations (a multiply and an add are two) of a matrix product.
        bytes_per_s: read and written by a copy.
    """

    threads: int
    flops_per_s: tuple[float, ...]
    bytes_per_s: tuple[float, ...]

    @property
    def flops(self) -> float:
        """The best of the samples."""
        return max(self.flops_per_s)

    @property
    def bandwidth(self) -> float:
        """The best of the samples."""
        return max(self.bytes_per_s)

    def roof(self, intensity: float) -> float:
        """Operations per second that ``intensity`` operations per byte allow (Williams 2009)."""
        return min(self.flops, intensity * self.bandwidth)


def measure(threads: Iterable[int]) -> tuple[Speed, ...]:
    """Two seconds for each number of threads.

    Raises:
        DetbenchError: a process failed.
    """
    return tuple(_in_child(number) for number in sorted(set(threads)))


def _in_child(threads: int) -> Speed:
    """BLAS reads its number of threads when it is loaded."""
    command = [sys.executable, "-m", "harness.machine_speed", str(threads)]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=TIMEOUT_S, check=True
        )
        return msgspec.json.decode(done.stdout, type=Speed)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise DetbenchError(
            f"the speed of the machine with {threads} threads cannot be measured ({error}): it"
            " needs numpy and 200 MB of memory"
        ) from None


def _speed(threads: int) -> Speed:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, SIDE, SIDE), dtype=np.float32)
    product = np.empty_like(a)
    seconds = _samples(lambda: np.matmul(a, b, out=product))
    source = np.ones(COPIED_BYTES, dtype=np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter while it copies
        copies = _samples(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    return Speed(
        threads=threads,
        flops_per_s=tuple(2 * SIDE**3 / each for each in seconds),
        bytes_per_s=tuple(2 * COPIED_BYTES / each for each in copies),
    )


def _samples(call: Callable[[], object]) -> list[float]:
    """Seconds of each call, after one that warms up."""
    call()
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(found) < LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_speed(int(sys.argv[1]))))
