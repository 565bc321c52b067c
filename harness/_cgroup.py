"""What a container may use: CPU quota and memory limit of the control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
UNLIMITED_BYTES = 1 << 60
"""Version 1 writes "no limit" as the largest multiple of a page; nobody owns an exbibyte."""


def cpu_quota_cores(root: Path = ROOT) -> float | None:
    """The tightest CPU quota of this process's groups, in cores; None where none is set."""
    quotas = []
    for folder in _folders(root, ""):
        words = (read(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            quotas.append(int(words[0]) / int(words[1]))
    for folder in _folders(root, "cpu"):
        quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
        if quota and period and quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def throttled_periods(root: Path = ROOT) -> int | None:
    """How often a CPU quota stopped this process's groups; None where none is counted."""
    counts = []
    for controller in ("", "cpu"):
        for folder in _folders(root, controller):
            for line in (read(folder / "cpu.stat") or "").splitlines():
                name, _, number = line.partition(" ")
                if name == "nr_throttled" and number.isdigit():
                    counts.append(int(number))
    return sum(counts) if counts else None


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The tightest memory limit of this process's groups; None where none is set."""
    limits = []
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _folders(root, controller):
            text = read(folder / name)
            if text and text.isdigit() and int(text) < UNLIMITED_BYTES:
                limits.append(int(text))
    return min(limits, default=None)


def read(path: Path) -> str | None:
    """A small text file, stripped; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return None


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's group and of all groups above it, whose limits hold too.

    ``controller`` is empty for version 2. A container may see its own group as the top although
    ``/proc/self/cgroup`` names it from the host's view; folders that do not exist are harmless.
    """
    top = root / "sys/fs/cgroup"
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller == "" and number == "0":
            mounts = [top, top / "unified"]
        elif controller and controller in controllers.split(","):
            mounts = [top / controllers, top / controller]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                yield mount.joinpath(*parts[:depth])
