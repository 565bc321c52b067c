"""A stand-in for psutil where it is not installed: what detbench reads, from Linux' files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Error(Exception):
    """Something about a process cannot be read."""


class _Memory(NamedTuple):
    total: int
    available: int


class _Times(NamedTuple):
    user: float
    nice: float
    system: float
    idle: float
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class _Frequency(NamedTuple):
    current: float
    min: float
    max: float


class _Resident(NamedTuple):
    rss: int


class _Thread(NamedTuple):
    id: int
    user_time: float
    system_time: float


def cpu_count(logical: bool = True) -> int | None:
    """Logical processors, or physical cores; None where that is unreadable."""
    if logical:
        return os.cpu_count()
    cores = set()
    for folder in CPUS.glob("cpu[0-9]*/topology"):
        try:
            names = ("physical_package_id", "core_id")
            cores.add(tuple((folder / name).read_text().strip() for name in names))
        except OSError:
            return None
    return len(cores) or None


def virtual_memory() -> _Memory:
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
    return _Memory(sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemFree"]))


def cpu_times() -> _Times:
    first = Path("/proc/stat").read_text().splitlines()[0].split()[1:11]
    return _Times(*(int(part) / TICK for part in first))


def cpu_freq(percpu: bool = False) -> list[_Frequency] | _Frequency | None:
    found = []
    for folder in sorted(CPUS.glob("cpu[0-9]*/cpufreq")):
        names = ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq")
        found.append(_Frequency(*(int((folder / name).read_text()) / 1000 for name in names)))
    return found if percpu else found[0] if found else None


class Process:
    """This process, or another one by its number."""

    def __init__(self, pid: int | None = None) -> None:
        self._folder = Path("/proc") / ("self" if pid is None else str(pid))

    def memory_info(self) -> _Resident:
        pages = int((self._folder / "statm").read_text().split()[1])
        return _Resident(pages * os.sysconf("SC_PAGE_SIZE"))

    def threads(self) -> list[_Thread]:
        found = []
        for folder in (self._folder / "task").iterdir():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            user, system = int(fields[11]) / TICK, int(fields[12]) / TICK
            found.append(_Thread(int(folder.name), user, system))
        return found
