"""Repeating what a child process says while it works."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

PERIOD_S = 1.0
"""Between looks into the log."""


@contextlib.contextmanager
def echoed(log: Path, start: str) -> Iterator[None]:
    """Print on stderr the lines of a log that begin with ``start``, as they are written."""
    over = threading.Event()

    def follow() -> None:
        seen = 0
        while True:
            last = over.wait(PERIOD_S)
            with contextlib.suppress(OSError):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                for line in lines[seen:]:
                    if line.startswith(start):
                        print(line, file=sys.stderr, flush=True)
                seen = len(lines)
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
