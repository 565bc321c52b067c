"""Which logical cores a run may use, as ``taskset`` does it: ``--cpus 0,2-3``.

The supervisor binds itself, so that every child inherits the set before any thread is made, and
the machine is described as what is left of it: another number of usable cores is another machine.
"""

from __future__ import annotations

import os
import re

from harness.errors import BadConfig, Unsupported

TVM_BINDS = "TVM_BIND_THREADS"
"""Environment variable: at 0, TVM's pool does not choose cores by itself."""


def parse_cpus(text: str) -> tuple[int, ...]:
    """``0,2-3`` as ``(0, 2, 3)``.

    Raises:
        BadConfig: not a list of numbers and ranges.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise BadConfig(
                f"--cpus '{text}' cannot be read at '{part}': write numbers and ranges, such as"
                " 0,2-3"
            )
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def bind(text: str) -> tuple[int, ...]:
    """Bind this process, and what it starts from now on, to the cores that ``text`` names.

    Raises:
        BadConfig: not a list of cores, or cores that this process may not use.
        Unsupported: the system has no affinity.
    """
    cpus = parse_cpus(text)
    if not hasattr(os, "sched_setaffinity"):
        raise Unsupported(
            "--cpus needs a system that can bind processes to cores (Linux): leave it out"
        )
    allowed = os.sched_getaffinity(0)
    outside = [str(cpu) for cpu in cpus if cpu not in allowed]
    if outside:
        may = ",".join(map(str, sorted(allowed)))
        raise BadConfig(
            f"--cpus {text} names core {', '.join(outside)}, but this process may use {may}:"
            " choose among them"
        )
    os.sched_setaffinity(0, cpus)
    os.environ[TVM_BINDS] = "0"
    return cpus


def allowed_cpus() -> tuple[int, ...] | None:
    """Logical cores that this process may run on; None where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None
