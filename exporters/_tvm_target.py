"""What TVM compiles for: the host's CPU or a named one, its vector registers, and the linker."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ExportFailed
from harness.extras import require

LINKERS = ("cc", "gcc", "clang", "g++", "clang++")
"""Any of them can link TVM's object files: these need no C++ library."""

X86_FEATURES = {
    "popcnt": "popcnt",
    "sse4.2": "sse4_2",
    "avx": "avx",
    "f16c": "f16c",
    "avx2": "avx2",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "fma": "fma",
    "lzcnt": "abm",
    "movbe": "movbe",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
}
"""Instruction sets that compiled kernels may use, by LLVM's name: Linux's name in /proc/cpuinfo."""


@dataclass(frozen=True, kw_only=True)
class CpuTarget:
    """One CPU as LLVM knows it.

    Attributes:
        tvm: the ``tvm.target.Target``.
        cpu: LLVM's name of it, for example ``znver4``.
        triple: for example ``x86_64-linux-gnu``.
        features: those of `X86_FEATURES` that the code may use, in Linux's spelling.
        lanes: float32 values in one vector register.
        registers: how many vector registers there are.
    """

    tvm: Any
    cpu: str
    triple: str
    features: tuple[str, ...]
    lanes: int
    registers: int

    @property
    def text(self) -> str:
        """The target in one line, for the manifest."""
        return f"llvm -mtriple={self.triple} -mcpu={self.cpu}"


def linker() -> str | None:
    """Path of a compiler driver that can link a shared library, or None."""
    return next((path for name in LINKERS if (path := shutil.which(name))), None)


def resolve(name: str) -> CpuTarget:
    """The target called ``name``: ``native``, or an LLVM CPU name of this machine's architecture.

    Raises:
        ExportFailed: LLVM knows no such CPU on this architecture.
    """
    tvm = require("tvm", extra="tvm")
    llvm = require("tvm.target.codegen", extra="tvm")
    triple = str(llvm.llvm_get_system_triple())
    cpu = str(llvm.llvm_get_system_cpu()) if name == "native" else name
    known = {str(arch) for arch in llvm.llvm_get_cpu_archlist(tvm.target.Target({"kind": "llvm"}))}
    if cpu not in known:
        raise ExportFailed(
            f"target '{name}': LLVM {llvm.llvm_version_major()} has no CPU '{cpu}' for {triple}:"
            " give 'native' or an LLVM CPU name of this machine's architecture, as x86-64-v3"
        )
    config: dict[str, Any] = {"kind": "llvm", "mcpu": cpu, "mtriple": triple}
    features = {str(f) for f in llvm.llvm_get_cpu_features(tvm.target.Target(config))}
    if name == "native":
        # LLVM names a CPU by its model number; a hypervisor may hide some of its instructions.
        host = _host_features()
        hidden = [ours for ours, linux in X86_FEATURES.items() if host and linux not in host]
        hidden = sorted(features.intersection(hidden))
        if hidden:
            config["mattr"] = [f"-{feature}" for feature in hidden]
            features.difference_update(hidden)
    lanes, registers = _vectors(triple, features)
    return CpuTarget(
        tvm=tvm.target.Target(config),
        cpu=cpu,
        triple=triple,
        features=tuple(linux for ours, linux in X86_FEATURES.items() if ours in features),
        lanes=lanes,
        registers=registers,
    )


def _vectors(triple: str, features: set[str]) -> tuple[int, int]:
    """Float32 lanes of a vector register and the number of such registers."""
    if triple.startswith(("x86_64", "i386", "i686")):
        if "avx512f" in features and "avx512vl" in features:
            return 16, 32
        return (8, 16) if "avx" in features else (4, 16)
    return (4, 32) if triple.startswith(("aarch64", "arm64")) else (4, 16)


def _host_features() -> set[str]:
    """Instruction sets that Linux reports; none where it does not say (not x86, not Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
