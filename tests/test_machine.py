"""What the machine is and was doing: fake ``/proc`` and ``/sys`` trees, planted changes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from harness import _cgroup, machine
from harness.machine import Machine, cpu_from_lscpu, machine_id, machine_record
from harness.records import decode, encode
from tests.planted_files import plant

PI = {
    "lscpu": [
        {
            "field": "Architecture:",
            "data": "aarch64",
            "children": [{"field": "CPU op-mode(s):", "data": "32-bit, 64-bit"}],
        },
        {
            "field": "Vendor ID:",
            "data": "ARM",
            "children": [
                {
                    "field": "Model name:",
                    "data": "Cortex-A76",
                    "children": [{"field": "Flags:", "data": "fp asimd crc32 asimdhp asimddp"}],
                }
            ],
        },
    ]
}


def test_this_machine_has_a_record_that_survives_json() -> None:
    found = machine_record()
    assert decode(encode(found), Machine, "here") == found
    assert found is machine_record()
    assert found.memory_bytes > 0
    assert 1 <= found.usable_cores <= (found.logical_cores or 1)
    assert re.fullmatch(r"[a-z0-9-]+-\d+c-[0-9a-f]{8}", found.id)


def test_the_id_is_stable_over_processes_and_holds_no_host_name() -> None:
    code = "from harness.machine import machine_record; print(machine_record().id)"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    }
    assert answers == {machine_record().id}
    assert os.uname().nodename not in encode(machine_record()).decode().split('"')


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "9.9"},
        {"python": "3.99"},
        {"governor": "powersave"},
        {"memory_bytes": machine_record().memory_bytes - 4096},
    ],
)
def test_an_update_keeps_the_id(change: dict[str, object]) -> None:
    assert machine_id(msgspec.structs.replace(machine_record(), **change)) == machine_record().id


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "Another CPU"},
        {"cores": 64},
        {"cpu_quota_cores": 0.5},
        {"affinity_cores": 99},
        {"features": ("avx2",)},
        {"memory_bytes": machine_record().memory_bytes * 2},
    ],
)
def test_what_decides_the_speed_changes_the_id(change: dict[str, object]) -> None:
    assert machine_id(msgspec.structs.replace(machine_record(), **change)) != machine_record().id


@pytest.mark.parametrize(
    ("cpu", "board", "slug"),
    [
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", None, "intel-core-i7-8700-4c-"),
        ("Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5-model-b-rev-1-0-4c-"),
        ("Apple M2", None, "apple-m2-4c-"),
        (None, None, "aarch64-4c-"),
        ("中", None, "unknown-4c-"),
        ("x" * 90, None, "x" * 40 + "-4c-"),
    ],
)
def test_the_id_reads_well(cpu: str | None, board: str | None, slug: str) -> None:
    made = msgspec.structs.replace(
        machine_record(), cpu=cpu, board=board, cores=4, architecture="aarch64"
    )
    assert machine_id(made)[:-8] == slug


def test_lscpu_of_a_raspberry_pi_is_read_through_its_nesting() -> None:
    cpu = cpu_from_lscpu(json.dumps(PI))
    assert cpu.model == "Cortex-A76"
    assert cpu.features == ("asimd", "asimddp", "asimdhp")
    assert cpu.hypervisor is None


@pytest.mark.parametrize(
    ("flags", "vendor", "expected"),
    [("sse avx2", None, "none"), ("sse hypervisor", None, "unnamed"), ("sse", "KVM", "KVM")],
)
def test_a_hypervisor_is_told_apart_from_bare_metal(
    flags: str, vendor: str | None, expected: str
) -> None:
    entries = [{"field": "Flags:", "data": flags}, {"field": "Model name:", "data": "-"}]
    if vendor:
        entries.append({"field": "Hypervisor vendor:", "data": vendor})
    cpu = cpu_from_lscpu(json.dumps({"lscpu": entries}))
    assert cpu.hypervisor == expected
    assert cpu.model is None


@pytest.mark.parametrize("text", ["", "{}", '{"lscpu": [{}]}', '{"lscpu": 5}'])
def test_a_broken_answer_of_lscpu_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"lscpu|Expecting value"):
        cpu_from_lscpu(text)


def test_without_lscpu_the_slow_way_tells_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if machine_record().system != "Linux":
        pytest.skip("only Linux has lscpu to compare with")
    fast = machine._cpu()
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    slow = machine._cpu()
    assert slow.model == fast.model
    assert slow.features == fast.features


def test_a_processor_that_no_tool_knows_is_none_and_not_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(name: str) -> object:
        raise Exception(f"{name} only works on x86 and some ARM")  # as py-cpuinfo does

    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    monkeypatch.setattr(machine.importlib, "import_module", unknown)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    assert machine._cpu() == (None, None, None)


def test_caches_are_read_from_sysfs(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/cache"
    plant(
        tmp_path,
        {
            f"{folder}/index0/level": "1\n",
            f"{folder}/index0/type": "Data\n",
            f"{folder}/index0/size": "48K\n",
            f"{folder}/index3/level": "3\n",
            f"{folder}/index3/type": "Unified\n",
            f"{folder}/index3/size": "2M\n",
            f"{folder}/index4/level": "4\n",
        },
    )
    assert machine._caches_bytes(tmp_path) == {"L1d": 49152, "L3": 2097152}
    assert machine._caches_bytes(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, None, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/b/memory.max": "1048576\n",
            },
            1.5,
            1048576,
        ),
        (
            {
                "proc/self/cgroup": "0::/docker/seen-from-the-host\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/memory.max": "max\n",
            },
            0.5,
            None,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n2:cpu,cpuacct:/c\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "2097152\n",
            },
            2.0,
            2097152,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            None,
        ),
    ],
    ids=["no groups", "v2 free", "v2 nested", "v2 container", "v1", "v1 free"],
)
def test_container_limits_of_both_versions(
    tmp_path: Path, files: dict[str, str], cores: float | None, memory: int | None
) -> None:
    plant(tmp_path, files)
    assert _cgroup.cpu_quota_cores(tmp_path) == cores
    assert _cgroup.memory_limit_bytes(tmp_path) == memory


@pytest.mark.parametrize(
    ("quota", "affinity", "expected"),
    [(None, 8, 4), (2.9, 8, 2), (0.5, 8, 1), (None, 3, 3), (None, None, 4)],
)
def test_usable_cores_honour_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, affinity: int | None, expected: int
) -> None:
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    monkeypatch.setattr(machine, "cpu_quota_cores", lambda: quota)
    monkeypatch.setattr(machine, "_affinity_cores", lambda: affinity)
    assert machine.usable_cores() == expected
