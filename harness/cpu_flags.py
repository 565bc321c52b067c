"""Instruction sets of this processor, in Linux's words."""

from __future__ import annotations

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_LINE = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)
"""What x86 and ARM call them."""


def cpu_flags() -> frozenset[str]:
    """Those of the first core; empty where the system does not tell."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = _LINE.search(text)
    return frozenset(found[1].split()) if found else frozenset()
