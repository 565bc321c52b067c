"""Whether a machine can run a module: its architecture, its instruction sets, its TVM.

Asked before anything is loaded, because loading a truncated library, or running an instruction that
the processor lacks, kills the process.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from harness.errors import ArtifactDamaged, Unsupported
from harness.records import Artifact

ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""``e_machine`` of the ELF header (System V ABI, gabi chapter 4) for the machines people have."""


class Place(NamedTuple):
    """Where a module shall run.

    Attributes:
        name: for people, as ``this machine``.
        architecture: as ``platform.machine()`` says; None where it is not known.
        cpu: tells its name, which takes a moment.
        flags: instruction sets, see `harness.cpu_flags`; empty where they are not known.
        tvm: version of TVM.
    """

    name: str
    architecture: str | None
    cpu: Callable[[], str | None]
    flags: Collection[str]
    tvm: str


def check(path: Path, artifact: Artifact, place: Place) -> None:
    """All that can be known before the library at ``path`` is loaded.

    Raises:
        ArtifactDamaged: not an ELF library, or shorter than its header says.
        Unsupported: built for another architecture or CPU, or by another TVM.
    """
    check_library(path, place)
    check_cpu(path, artifact, place)
    check_version(artifact, place)


def check_library(path: Path, place: Place) -> None:
    """Read the ELF header.

    Raises:
        ArtifactDamaged: not an ELF library, or shorter than its header says.
        Unsupported: another architecture's.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
    if len(head) < 64 or head[:4] != b"\x7fELF":
        raise ArtifactDamaged(f"{path} is not a Linux shared library: export the model again")
    order = "<" if head[5] == 1 else ">"
    machine = struct.unpack_from(f"{order}H", head, 18)[0]
    bits = "" if head[4] == 2 else "32-bit "
    name = bits + ELF_MACHINES.get(machine, f"machine {machine}")
    if place.architecture is not None and name != place.architecture:
        raise Unsupported(
            f"{path} was built for {name} and {place.name} is {place.architecture}:"
            f" export the model with the target of that machine, or run it on {name}"
        )
    if bits:
        return
    offset = struct.unpack_from(f"{order}Q", head, 40)[0]
    entry, count = struct.unpack_from(f"{order}HH", head, 58)
    whole = offset + entry * count
    size = path.stat().st_size
    if size < whole:
        raise ArtifactDamaged(
            f"{path} has {size} bytes, its header says {whole}: export the model again"
        )


def check_cpu(path: Path, artifact: Artifact, place: Place) -> None:
    """Compare the instruction sets that the code uses with those of the processor.

    Raises:
        Unsupported: one is missing.
    """
    needed = artifact.toolchain.get("cpu-features", "").split()
    missing = [name for name in needed if name not in place.flags] if place.flags else []
    if missing:
        raise Unsupported(
            f"{path} was built for {artifact.toolchain.get('target', 'another CPU')} and uses"
            f" {', '.join(missing)}, which {place.name} ({place.cpu() or 'unnamed CPU'}) lacks:"
            " export the model with the target of that machine"
        )


def check_version(artifact: Artifact, place: Place) -> None:
    """A module runs on the TVM that built it only. Raises Unsupported."""
    made_by = artifact.toolchain.get("apache-tvm", place.tvm)
    if made_by != place.tvm:
        raise Unsupported(
            f"{artifact.id} was built by TVM {made_by} and {place.name} has {place.tvm}:"
            f" export {artifact.model} again, or install apache-tvm=={made_by} there"
        )
