"""The machine that measured: what it is, what it may use, and a name for it.

What it was *doing* is in `harness.machine_state`, whose `state` and `taint` are offered here too.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from harness._cgroup import ROOT, cpu_quota_cores, memory_limit_bytes, read
from harness.emulation import emulator
from harness.machine_state import MachineState, governor, own_cpu_seconds, state, taint, turbo
from harness.records import Record

__all__ = [
    "Machine",
    "MachineState",
    "machine_id",
    "machine_record",
    "own_cpu_seconds",
    "state",
    "taint",
    "too_many",
    "usable_cores",
]

_FEATURE_NAMES = """
    sse4_2 avx avx2 fma f16c avx512f avx512_vnni avx_vnni avx512_bf16 avx512_fp16
    amx_tile amx_int8 amx_bf16
    neon asimd fphp asimdhp asimddp i8mm bf16 sve sve2 sme
"""
FEATURES = frozenset(_FEATURE_NAMES.split())
"""CPU features that decide which kernels a runtime picks, by their names in Linux."""
DECISIVE = (
    "cpu",
    "board",
    "architecture",
    "features",
    "cores",
    "logical_cores",
    "affinity_cores",
    "cpu_quota_cores",
    "hypervisor",
    "system",
)
"""Fields that make another machine of it when they change, beside the memory in whole GiB."""
SLUG_LENGTH = 40


class Machine(Record, frozen=True, kw_only=True):
    """One machine, without anything that names its owner. What cannot be read is None.

    Attributes:
        id: readable and unique to the fields that decide how fast it can be.
        cpu: model name. board: of a single-board computer.
        features: those of `FEATURES` that it has.
        cores: physical. logical_cores: with hyper-threads.
        affinity_cores: logical cores that this process may run on.
        cpu_quota_cores: of the container; None where there is no limit.
        usable_cores: physical cores within affinity and quota.
        caches_bytes: by name, as one core sees them.
        memory_limit_bytes: of the container; None where there is no limit.
        hypervisor: its vendor; "none" on bare metal.
        emulated: by which program, where the processor is no real one.
    """

    id: str
    cpu: str | None
    board: str | None
    architecture: str
    features: tuple[str, ...] | None
    cores: int | None
    logical_cores: int | None
    affinity_cores: int | None
    cpu_quota_cores: float | None
    usable_cores: int
    caches_bytes: dict[str, int] | None
    max_mhz: float | None
    memory_bytes: int
    memory_limit_bytes: int | None
    hypervisor: str | None
    system: str
    kernel: str
    os: str
    python: str
    governor: str | None
    turbo: bool | None
    emulated: str | None = None


class Cpu(NamedTuple):
    """What a tool says about the processor."""

    model: str | None
    features: tuple[str, ...] | None
    hypervisor: str | None


@cache
def machine_record() -> Machine:
    """This machine; read once in a process. About 5 ms on Linux, a second elsewhere."""
    cpu = _cpu()
    found = Machine(
        id="",
        cpu=cpu.model,
        board=read(ROOT / "proc/device-tree/model") or None,
        architecture=platform.machine(),
        features=cpu.features,
        cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        affinity_cores=_affinity_cores(),
        cpu_quota_cores=cpu_quota_cores(),
        usable_cores=usable_cores(),
        caches_bytes=_caches_bytes(ROOT),
        max_mhz=_max_mhz(),
        memory_bytes=psutil.virtual_memory().total,
        memory_limit_bytes=memory_limit_bytes(),
        hypervisor=cpu.hypervisor,
        system=platform.system(),
        kernel=platform.release(),
        os=_os_name(),
        python=platform.python_version(),
        governor=governor(),
        turbo=turbo(),
        emulated=emulator(),
    )
    return msgspec.structs.replace(found, id=machine_id(found))


def machine_id(machine: Machine) -> str:
    """``intel-xeon-processor-2c-1a2b3c4d``: what people read, then 8 digits over `DECISIVE`.

    It changes with what decides the speed, limits of the container included. It does not with
    names, load, kernel or Python: history goes on after an update.
    """
    text = (machine.board or machine.cpu or machine.architecture).lower()
    text = re.sub(r"\((r|tm|c)\)|@.*|\bcpu\b", " ", text)
    slug = re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:SLUG_LENGTH].rstrip("-") or "unknown"
    facts = {name: getattr(machine, name) for name in DECISIVE}
    if machine.emulated:
        facts["emulated"] = machine.emulated
    facts["memory_gib"] = math.ceil(machine.memory_bytes / 2**30)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{slug}-{machine.cores or machine.logical_cores or 0}c-{digest[:8]}"


def usable_cores() -> int:
    """Physical cores within this process's CPU affinity and the container's quota, at least 1."""
    quota = cpu_quota_cores()
    bounds = (
        psutil.cpu_count(logical=False) or psutil.cpu_count(),
        _affinity_cores(),
        None if quota is None else math.floor(quota),
    )
    return max(1, min((bound for bound in bounds if bound is not None), default=1))


def too_many(threads: int) -> str | None:
    """Why so many threads cannot be timed here, in a sentence, or None.

    More threads than logical cores take turns, and a quota below their number stops all of them in
    the middle of a call: what is timed then is the scheduler.
    """
    quota, cores = cpu_quota_cores(), _affinity_cores() or psutil.cpu_count() or threads
    if threads > cores:
        return (
            f"{threads} threads are more than the {cores} logical cores that this process may use:"
            f" ask for at most {cores}"
        )
    if quota is not None and threads > quota:
        return (
            f"the container's CPU quota of {quota:g} cores is below {threads}"
            f" thread{'s' * (threads > 1)}, which would be stopped in the middle of calls:"
            " raise the quota or ask for fewer threads"
        )
    return None


def _affinity_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _cpu() -> Cpu:
    """By ``lscpu``, which every Linux distribution has and takes 3 ms; else by py-cpuinfo."""
    if program := emulator():  # the tools see the processor beneath
        return Cpu(f"{platform.machine()} emulated by {program}", None, None)
    tool = shutil.which("lscpu")
    if tool is not None:
        try:
            answer = subprocess.run(
                [tool, "-J"],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
                env={**os.environ, "LC_ALL": "C"},
            )
            return cpu_from_lscpu(answer.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            pass  # an lscpu that is too old or forbidden: the slow way still works
    return _cpu_from_cpuinfo()


def cpu_from_lscpu(text: str) -> Cpu:
    """Read the answer of ``lscpu -J``.

    Raises:
        ValueError: it is not that.
    """
    try:
        fields = dict(_lscpu_fields(json.loads(text)["lscpu"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an answer of lscpu -J: {error!r}") from None
    flags = fields.get("Flags")
    present = set(flags.split()) if flags else None
    hypervisor = fields.get("Hypervisor vendor")
    if hypervisor is None and present is not None and "sse" in present:
        hypervisor = "unnamed" if "hypervisor" in present else "none"
    model = fields.get("Model name")
    return Cpu(
        model=None if model in (None, "-") else model,
        features=None if present is None else tuple(sorted(FEATURES & present)),
        hypervisor=hypervisor,
    )


def _lscpu_fields(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Newer versions nest fields in ``children``."""
    found: list[tuple[str, str]] = []
    for entry in entries:
        found.append((entry["field"].rstrip(":"), entry.get("data") or ""))
        found += _lscpu_fields(entry.get("children", []))
    return found


def _cpu_from_cpuinfo() -> Cpu:
    try:
        info: dict[str, Any] = importlib.import_module("cpuinfo").get_cpu_info()
    except Exception:  # py-cpuinfo raises bare Exceptions on processors it does not know
        info = {}
    flags = info.get("flags")
    return Cpu(
        model=info.get("brand_raw") or platform.processor() or None,
        features=None if flags is None else tuple(sorted(FEATURES & set(flags))),
        hypervisor=None,
    )


def _caches_bytes(root: Path) -> dict[str, int] | None:
    """``{"L1d": 32768, …}`` from the first core."""
    found = {}
    for folder in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = (read(folder / name) for name in ("level", "type", "size"))
        match = re.fullmatch(r"(\d+)([KM])", size or "")
        if level and kind and match:
            suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
            found[f"L{level}{suffix}"] = int(match[1]) * {"K": 2**10, "M": 2**20}[match[2]]
    return dict(sorted(found.items())) or None


def _max_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, AttributeError, RuntimeError, ValueError):
        return None
    return frequency.max or None if frequency else None


def _os_name() -> str:
    """``Debian GNU/Linux 12 (bookworm)``; elsewhere the system and its release."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.mac_ver()[0] or platform.release()}"
