"""What TVM compiles for: the host's CPU or a named one, its vector registers, and the linker."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from typing import Any

from harness.cpu_flags import cpu_flags
from harness.errors import ExportFailed
from harness.extras import require

LINKERS = ("cc", "gcc", "clang", "g++", "clang++")
"""Any of them can link TVM's object files: these need no C++ library."""

NAMED = {
    "x86-64-v2": ("x86_64-linux-gnu", "x86-64-v2"),
    "x86-64-v3": ("x86_64-linux-gnu", "x86-64-v3"),
    "x86-64-v4": ("x86_64-linux-gnu", "x86-64-v4"),
    "aarch64": ("aarch64-linux-gnu", "generic"),
    "rpi3": ("aarch64-linux-gnu", "cortex-a53"),
    "rpi4": ("aarch64-linux-gnu", "cortex-a72"),
    "rpi5": ("aarch64-linux-gnu", "cortex-a76"),
    "imx8mp": ("aarch64-linux-gnu", "cortex-a53"),
    "imx93": ("aarch64-linux-gnu", "cortex-a55"),
    "jetson-nano": ("aarch64-linux-gnu", "cortex-a57"),
}
"""Boards and instruction sets: Debian's triple and LLVM's CPU."""

ARCHITECTURES = frozenset({"aarch64", "arm", "armv7l", "i686", "riscv64", "x86_64"})
"""Those that Debian has cross compilers and TVM's LLVM may have a back end for."""

_LLVM_NAMES = {"armv7l": "arm", "armv7": "arm", "i686": "i386", "riscv64": "riscv64"}
"""LLVM's name of an architecture where a triple has another."""

FEATURES = {
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
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
    "lse": "atomics",
    "rdm": "asimdrdm",
    "sve": "sve",
    "sve2": "sve2",
    "i8mm": "i8mm",
    "bf16": "bf16",
}
"""Instruction sets of x86 and ARM that compiled kernels may use, by LLVM's name: Linux's name in
/proc/cpuinfo."""


@dataclass(frozen=True, kw_only=True)
class CpuTarget:
    """One CPU as LLVM knows it.

    Attributes:
        name: as it was asked for.
        tvm: the ``tvm.target.Target``.
        cpu: LLVM's name of it, for example ``znver4``.
        triple: for example ``x86_64-linux-gnu``.
        features: those of `FEATURES` that the code may use, in Linux's spelling.
        lanes: float32 values in one vector register.
        registers: how many vector registers there are.
        here: whether this machine can run its code.
    """

    name: str
    tvm: Any
    cpu: str
    triple: str
    features: tuple[str, ...]
    lanes: int
    registers: int
    here: bool

    @property
    def text(self) -> str:
        """The target in one line, for the manifest."""
        return f"llvm -mtriple={self.triple} -mcpu={self.cpu}"


def linker(name: str) -> str | None:
    """Path of a compiler driver that can link a library for the target called ``name``, or None."""
    found = (shutil.which(driver) for driver in linkers(triple_of(name)))
    return next((path for path in found if path), None)


def linkers(triple: str | None) -> tuple[str, ...]:
    """Names of the drivers that link for a triple; None is this machine."""
    if triple is None or _arch(triple) == _arch(platform.machine()):
        return LINKERS
    return (f"{triple}-g++", f"{triple}-gcc")


def plausible(name: str) -> bool:
    """Whether a compiler for it may exist; LLVM says of the others that it has no back end."""
    triple = triple_of(name)
    return triple is None or _arch(triple) in ARCHITECTURES


def no_linker(name: str) -> str:
    """What to install, as the end of a sentence."""
    triple = triple_of(name)
    drivers = linkers(triple)
    package = "gcc" if drivers == LINKERS else f"g++-{str(triple).replace('_', '-')}"
    return f"finds none of {', '.join(drivers)}: install the package {package}"


def triple_of(name: str) -> str | None:
    """The triple that a target's name holds; None where it means this machine's."""
    if name in NAMED:
        return NAMED[name][0]
    return _config(name).get("mtriple") if name.startswith("llvm ") else None


def resolve(name: str) -> CpuTarget:
    """The target called ``name``.

    ``native``, a board or instruction set of `NAMED`, an LLVM CPU of this machine's architecture,
    or a whole target as ``llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72 -mattr=+neon``.

    Raises:
        ExportFailed: TVM or LLVM knows no such target or CPU.
    """
    llvm = require("tvm.target.codegen", extra="tvm")
    host = str(llvm.llvm_get_system_triple())
    if name in NAMED:
        config: dict[str, Any] = dict(zip(("mtriple", "mcpu"), NAMED[name], strict=True))
    elif name.startswith("llvm "):
        config = {"mtriple": host, "mcpu": "generic", **_config(name)}
    else:
        cpu = str(llvm.llvm_get_system_cpu()) if name == "native" else name
        config = {"mtriple": host, "mcpu": cpu}
    config["kind"] = "llvm"
    features = _features(name, config)
    if name == "native":
        # LLVM names a CPU by its model number; a hypervisor may hide some of its instructions.
        offered = cpu_flags()
        hidden = [ours for ours, linux in FEATURES.items() if offered and linux not in offered]
        hidden = sorted(features.intersection(hidden))
        if hidden:
            config["mattr"] = [f"-{feature}" for feature in hidden]
            features.difference_update(hidden)
    lanes, registers = _vectors(config["mtriple"], features)
    return CpuTarget(
        name=name,
        tvm=require("tvm", extra="tvm").target.Target(config),
        cpu=config["mcpu"],
        triple=config["mtriple"],
        features=tuple(linux for ours, linux in FEATURES.items() if ours in features),
        lanes=lanes,
        registers=registers,
        here=_runs_here(config["mtriple"], features),
    )


def _features(name: str, config: dict[str, Any]) -> set[str]:
    """What LLVM may use of a CPU. Raises ExportFailed where it does not know it."""
    target = require("tvm", extra="tvm").target.Target
    llvm = require("tvm.target.codegen", extra="tvm")
    architecture = _arch(config["mtriple"])
    if not {architecture, _LLVM_NAMES.get(architecture, "")} & set(
        map(str, llvm.llvm_get_targets())
    ):
        raise ExportFailed(
            f"target '{name}': this TVM's LLVM {llvm.llvm_version_major()} has no back end for"
            f" {config['mtriple']}: give one of {', '.join(('native', *NAMED))}"
        )
    generic = target({"kind": "llvm", "mtriple": config["mtriple"]})
    known = {str(cpu) for cpu in llvm.llvm_get_cpu_archlist(generic)}
    if config["mcpu"] not in {*known, "generic"}:
        raise ExportFailed(
            f"target '{name}': LLVM {llvm.llvm_version_major()} has no CPU '{config['mcpu']}' for"
            f" {config['mtriple']}: give one of {', '.join(('native', *NAMED))}, or an LLVM CPU"
            " name of this machine's architecture"
        )
    try:
        return {str(feature) for feature in llvm.llvm_get_cpu_features(target(config))}
    except Exception as error:  # TVM refuses a target in several types
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ExportFailed(f"target '{name}': TVM does not know it: {reason}") from error


def _config(name: str) -> dict[str, Any]:
    """Read ``llvm -mcpu=cortex-a72 …``. Raises ExportFailed."""
    config: dict[str, Any] = {}
    for part in name.split()[1:]:
        key, equals, value = part.lstrip("-").partition("=")
        if not equals or key not in ("mtriple", "mcpu", "mattr"):
            raise ExportFailed(
                f"target '{name}': '{part}' is none of -mtriple=…, -mcpu=… and -mattr=…"
            )
        if key == "mattr":
            config.setdefault(key, []).extend(value.split(";"))
        else:
            config[key] = value
    return config


def _arch(triple: str) -> str:
    """``aarch64`` of ``aarch64-linux-gnu``, in one spelling."""
    first = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(first, first)


def _runs_here(triple: str, features: set[str]) -> bool:
    """Whether code for a target can be timed on this machine."""
    if _arch(triple) != _arch(platform.machine()):
        return False
    offered = cpu_flags()
    used = {linux for ours, linux in FEATURES.items() if ours in features}
    return not offered or used <= offered


def _vectors(triple: str, features: set[str]) -> tuple[int, int]:
    """Float32 lanes of a vector register and the number of such registers."""
    if triple.startswith(("x86_64", "i386", "i686")):
        if "avx512f" in features and "avx512vl" in features:
            return 16, 32
        return (8, 16) if "avx" in features else (4, 16)
    return (4, 32) if triple.startswith(("aarch64", "arm64")) else (4, 16)
