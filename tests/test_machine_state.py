"""The machine before and after a cell: what is read, and what taints a row."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from harness import _cgroup, machine, machine_state
from harness.machine import MachineState
from harness.records import decode, encode
from tests.planted_files import plant

CALM = MachineState(
    clock_ns=1_000_000_000_000,
    monotonic_ns=5_000_000_000,
    load=0.1,
    frequencies_mhz=(1500.0,),
    temperatures_c={"cpu_thermal": 55.0},
    governor="performance",
    turbo=False,
    throttled=0,
    throttle_events=0,
    memory_available_bytes=2**30,
    busy_seconds=100.0,
    stolen_seconds=1.0,
    own_cpu_seconds=10.0,
)


def later(seconds: float = 10.0, **changes: object) -> MachineState:
    """`CALM` after a cell that used one core for ``seconds``, with ``changes``."""
    span = round(seconds * 1e9)
    plain = msgspec.structs.replace(
        CALM,
        clock_ns=CALM.clock_ns + span,
        monotonic_ns=CALM.monotonic_ns + span,
        busy_seconds=100.0 + seconds,
        own_cpu_seconds=10.0 + seconds,
    )
    return msgspec.structs.replace(plain, **changes)


def test_a_look_at_this_machine_survives_json_and_counts_our_work() -> None:
    before = machine.state()
    assert decode(encode(before), MachineState, "here") == before
    while machine.own_cpu_seconds() - before.own_cpu_seconds < 0.05:
        sum(range(10_000))
    after = machine.state()
    assert after.monotonic_ns > before.monotonic_ns
    assert after.own_cpu_seconds >= before.own_cpu_seconds + 0.05
    assert after.busy_seconds is not None
    assert before.busy_seconds is not None
    assert after.busy_seconds > before.busy_seconds


def test_stops_by_a_cpu_quota_are_counted_and_taint(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a\n",
        "sys/fs/cgroup/a/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 4\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 5\n",
    }
    root = plant(tmp_path, files)
    assert _cgroup.throttled_periods(root) == 4
    assert machine_state.state(root).quota_throttled == 4
    assert _cgroup.throttled_periods(tmp_path / "nothing") is None
    before = msgspec.structs.replace(CALM, quota_throttled=4)
    assert machine.taint(before, later(quota_throttled=4)) is None
    stopped = machine.taint(before, later(quota_throttled=7))
    assert stopped is not None
    assert "the container's CPU quota stopped it 3 times" in stopped


def test_governor_turbo_and_throttling_are_read_from_sysfs(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    plant(
        tmp_path,
        {
            f"{cpus}/cpufreq/policy0/scaling_governor": "schedutil\n",
            f"{cpus}/cpufreq/policy4/scaling_governor": "performance\n",
            f"{cpus}/cpufreq/boost": "1\n",
            f"{cpus}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpus}/cpu1/thermal_throttle/core_throttle_count": "4\n",
        },
    )
    found = machine.state(tmp_path)
    assert (found.governor, found.turbo, found.throttle_events) == (
        "performance,schedutil",
        True,
        7,
    )
    plant(tmp_path, {f"{cpus}/intel_pstate/no_turbo": "1\n"})
    assert machine.state(tmp_path).turbo is False
    empty = machine.state(tmp_path / "nowhere")
    assert (empty.governor, empty.turbo, empty.throttle_events) == (None, None, None)


@pytest.mark.parametrize(
    ("answer", "expected"), [("throttled=0x50005", 0x50005), ("error", None), ("", None)]
)
def test_throttle_flags_of_a_raspberry_pi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, expected: int | None
) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] && echo "{answer}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert machine.state().throttled == expected


def test_sensors_that_are_missing_or_broken_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> object:
        raise OSError("planted")

    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    monkeypatch.setattr(psutil, "cpu_freq", broken)
    monkeypatch.setattr(psutil, "cpu_times", broken)
    monkeypatch.setattr(machine_state.os, "getloadavg", broken)
    found = machine.state()
    assert found.temperatures_c is None
    assert found.frequencies_mhz is None
    assert found.busy_seconds is None
    assert found.load is None
    assert machine.taint(found, found) is None


def test_the_hottest_sensor_of_each_chip_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, current: float | None) -> None:
            self.current = current

    chips = {"coretemp": [Entry(40.0), Entry(71.5)], "dead": [Entry(None)], "none": []}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips, raising=False)
    assert machine.state().temperatures_c == {"coretemp": 71.5}


def test_a_calm_machine_taints_nothing() -> None:
    assert machine.taint(CALM, later()) is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (later(busy_seconds=113.7), "other processes used 37% of a core"),
        (later(stolen_seconds=3.0), "the hypervisor took 20% of a core"),
        (later(governor="powersave"), "governor changed from performance to powersave"),
        (later(governor=None), "governor changed from performance to None"),
        (later(turbo=True), "turbo changed from off to on"),
        (later(throttled=0x4), "the board reports throttled"),
        (later(throttled=0x50000), "the board reports under-voltage, throttled"),
        (later(throttle_events=2), "throttling events of the CPU: 2"),
        (later(clock_ns=CALM.clock_ns + 70_000_000_000), "clock jumped by 60.0 s"),
        (later(clock_ns=CALM.clock_ns), "clock jumped by -10.0 s"),
    ],
)
def test_a_planted_change_taints_and_is_named(after: MachineState, expected: str) -> None:
    reason = machine.taint(CALM, after)
    assert reason is not None
    assert expected in reason
    assert reason.endswith("measure again")


def test_throttling_of_long_ago_does_not_taint() -> None:
    before = msgspec.structs.replace(CALM, throttled=0x50000)
    assert machine.taint(before, later(throttled=0x50000)) is None


def test_a_little_work_of_others_does_not_taint() -> None:
    assert machine.taint(CALM, later(busy_seconds=110.9)) is None
    assert machine.taint(CALM, later(seconds=0.1, busy_seconds=100.14)) is None


def test_ticks_that_are_miscounted_on_many_cores_do_not_taint() -> None:
    """32 cores for 10 s: 1.5 % of our own 320 s look like someone else's."""
    after = later(busy_seconds=424.8, own_cpu_seconds=330.0)
    assert machine.taint(CALM, after) is None
    assert machine.taint(CALM, later(busy_seconds=430.0, own_cpu_seconds=330.0)) is not None


def test_own_time_can_be_given() -> None:
    after = later(own_cpu_seconds=10.0)
    assert machine.taint(CALM, after, own_cpu_seconds=10.0) is None
    assert machine.taint(CALM, after) is not None


def test_all_reasons_stand_in_one_sentence() -> None:
    reason = machine.taint(CALM, later(turbo=True, throttle_events=1))
    assert reason == (
        "throttling events of the CPU: 1; turbo changed from off to on:"
        " let the machine rest and measure again"
    )


def test_a_busy_neighbour_is_noticed_here() -> None:
    """No retry: on a machine in full use it is other neighbours that are noticed."""
    burn = "import time\nend = time.process_time() + 5\nwhile time.process_time() < end: pass"
    before = machine.state()
    neighbour = subprocess.Popen([sys.executable, "-c", burn])
    try:
        process = psutil.Process(neighbour.pid)
        while sum(process.cpu_times()[:2]) < 0.5:
            time.sleep(0.05)
        reason = machine.taint(before, machine.state())
    finally:
        neighbour.kill()
        neighbour.wait()
    assert reason is not None
    assert "other processes used" in reason
