"""What the machine was doing before and after a cell, and whether that spoils the timing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil

from harness._cgroup import ROOT, read, throttled_periods
from harness.records import Record

BUSY_SHARE = 0.10
"""Other processes may use this share of one core; an idle desktop stays well below it."""
OWN_ERROR = 0.02
"""The kernel counts by ticks: this share of our own CPU time may look like someone else's."""
LEAST_BUSY_SECONDS = 0.05
"""Five ticks; less is not told apart from rounding."""
CLOCK_JUMP_SECONDS = 1.0
CPUS = "sys/devices/system/cpu"


class MachineState(Record, frozen=True, kw_only=True):
    """One look at the machine. What cannot be read is None.

    Attributes:
        clock_ns: wall clock, UTC since 1970. monotonic_ns: the clock that never jumps.
        load: average number of runnable processes over the last minute.
        frequencies_mhz: of each logical core. temperatures_c: the hottest sensor by chip.
        governor: of the CPU frequency; several are joined by a comma. turbo: whether it is on.
        throttled: flags of Raspberry Pi's ``vcgencmd get_throttled``.
        throttle_events: of all cores since boot, x86 only.
        quota_throttled: periods in which the container's CPU quota stopped this process's groups.
        memory_available_bytes: without swapping.
        busy_seconds: CPU time of all processes since boot. stolen_seconds: of other guests.
        own_cpu_seconds: CPU time of this process and the children it has waited for.
    """

    clock_ns: int
    monotonic_ns: int
    load: float | None
    frequencies_mhz: tuple[float, ...] | None
    temperatures_c: dict[str, float] | None
    governor: str | None
    turbo: bool | None
    throttled: int | None
    throttle_events: int | None
    memory_available_bytes: int | None
    busy_seconds: float | None
    stolen_seconds: float | None
    own_cpu_seconds: float
    quota_throttled: int | None = None


def state(root: Path = ROOT) -> MachineState:
    """Look at the machine now. Takes about a millisecond, a few more on a Raspberry Pi.

    ``root`` is where ``/sys`` is found.
    """
    busy, stolen = _cpu_seconds()
    return MachineState(
        clock_ns=time.time_ns(),
        monotonic_ns=time.monotonic_ns(),
        load=_load(),
        frequencies_mhz=_frequencies_mhz(),
        temperatures_c=_temperatures_c(),
        governor=governor(root),
        turbo=turbo(root),
        throttled=_throttled(),
        throttle_events=_throttle_events(root),
        memory_available_bytes=psutil.virtual_memory().available,
        busy_seconds=busy,
        stolen_seconds=stolen,
        own_cpu_seconds=own_cpu_seconds(),
        quota_throttled=throttled_periods(root),
    )


def taint(
    before: MachineState, after: MachineState, own_cpu_seconds: float | None = None
) -> str | None:
    """Why a timing taken between two looks cannot be trusted, in one sentence, or None.

    It cannot when other processes used more than 10 % of one core (or more than 2 % of our own
    CPU time, where that is more), when the hypervisor took as much, when the CPU was throttled,
    when governor or turbo changed, or when the clock jumped (or the machine slept).

    Args:
        own_cpu_seconds: what the timed process and its supervisor used in between; if None, what
            both looks say that this process and its ended children used.
    """
    seconds = (after.monotonic_ns - before.monotonic_ns) / 1e9
    own = (
        after.own_cpu_seconds - before.own_cpu_seconds
        if own_cpu_seconds is None
        else own_cpu_seconds
    )
    limit = max(BUSY_SHARE * seconds, OWN_ERROR * own, LEAST_BUSY_SECONDS)
    reasons = []
    if before.busy_seconds is not None and after.busy_seconds is not None:
        others = after.busy_seconds - before.busy_seconds - own
        if others > limit:
            reasons.append(f"other processes used {_share(others, seconds)} of a core")
    if before.stolen_seconds is not None and after.stolen_seconds is not None:
        stolen = after.stolen_seconds - before.stolen_seconds
        if stolen > limit:
            reasons.append(f"the hypervisor took {_share(stolen, seconds)} of a core")
    reasons += _throttling(before, after)
    if before.governor != after.governor:
        reasons.append(f"the governor changed from {before.governor} to {after.governor}")
    if before.turbo != after.turbo:
        reasons.append(f"turbo changed from {_on(before.turbo)} to {_on(after.turbo)}")
    jump = (after.clock_ns - before.clock_ns) / 1e9 - seconds
    if abs(jump) > CLOCK_JUMP_SECONDS:
        reasons.append(f"the system clock jumped by {jump:.1f} s or the machine slept")
    if not reasons:
        return None
    return f"{'; '.join(reasons)}: let the machine rest and measure again"


def own_cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def governor(root: Path = ROOT) -> str | None:
    """The CPU frequency governor, several joined by a comma."""
    policies = (root / CPUS / "cpufreq").glob("policy*/scaling_governor")
    found = {text for text in map(read, policies) if text}
    return ",".join(sorted(found)) or None


def turbo(root: Path = ROOT) -> bool | None:
    """Whether the CPU may run above its nominal frequency."""
    no_turbo = read(root / CPUS / "intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    boost = read(root / CPUS / "cpufreq/boost")
    return None if boost is None else boost == "1"


def _throttling(before: MachineState, after: MachineState) -> list[str]:
    """Bits 0–3 of the flags hold now, bits 16–19 since boot."""
    reasons = []
    if before.throttled is not None and after.throttled is not None:
        now = (before.throttled | after.throttled) & 0xF
        since = (after.throttled & ~before.throttled) >> 16 & 0xF
        words = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
        told = [word for bit, word in enumerate(words) if (now | since) >> bit & 1]
        if told:
            reasons.append(f"the board reports {', '.join(told)}")
    if before.throttle_events is not None and after.throttle_events is not None:
        events = after.throttle_events - before.throttle_events
        if events > 0:
            reasons.append(f"throttling events of the CPU: {events}")
    if before.quota_throttled is not None and after.quota_throttled is not None:
        stops = after.quota_throttled - before.quota_throttled
        if stops > 0:
            reasons.append(f"the container's CPU quota stopped it {stops} times")
    return reasons


def _share(cpu_seconds: float, seconds: float) -> str:
    return f"{cpu_seconds / seconds:.0%}" if seconds > 0 else f"{cpu_seconds:.2f} s"


def _on(flag: bool | None) -> str:
    return {True: "on", False: "off", None: "unreadable"}[flag]


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _cpu_seconds() -> tuple[float | None, float | None]:
    """Busy and stolen CPU time of all cores since boot; guests are counted in user time."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, psutil.Error):
        return None, None
    parts = ("user", "nice", "system", "irq", "softirq")
    busy = sum(float(getattr(times, part, 0.0)) for part in parts)
    stolen = getattr(times, "steal", None)
    return busy, None if stolen is None else float(stolen)


def _frequencies_mhz() -> tuple[float, ...] | None:
    try:
        found = psutil.cpu_freq(percpu=True)
    except (OSError, NotImplementedError, AttributeError, RuntimeError, ValueError):
        return None
    return tuple(round(f.current, 1) for f in found or () if f and f.current) or None


def _temperatures_c() -> dict[str, float] | None:
    """psutil has no such function on macOS, and an empty answer in most virtual machines."""
    sensors = getattr(psutil, "sensors_temperatures", None)
    try:
        chips = sensors() if sensors else {}
    except (OSError, ValueError, RuntimeError):
        return None
    hottest = {
        chip: max(entry.current for entry in entries if entry.current is not None)
        for chip, entries in chips.items()
        if any(entry.current is not None for entry in entries)
    }
    return hottest or None


def _throttled() -> int | None:
    """``throttled=0x50005`` as a number."""
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    try:
        answer = subprocess.run(
            [tool, "get_throttled"], capture_output=True, text=True, timeout=2, check=True
        )
        return int(answer.stdout.strip().partition("=")[2], 16)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _throttle_events(root: Path) -> int | None:
    """Sum over cores of the events that the thermal monitor counted."""
    counters = (root / CPUS).glob("cpu*/thermal_throttle/core_throttle_count")
    counts = [int(text) for text in map(read, counters) if text and text.isdigit()]
    return sum(counts) if counts else None
