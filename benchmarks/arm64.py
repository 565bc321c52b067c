"""An AArch64 userland without a board: Python of Debian, wheels of PyPI, run by user-mode QEMU.

    python benchmarks/arm64.py out/arm64
    out/arm64/python -m harness parity ARTIFACT_BUILT_FOR_RPI4

It makes a folder whose ``python`` runs this checkout as on a Raspberry Pi, for parity and accuracy:
times mean nothing there, and detbench refuses to take any. Nothing outside the folder is changed,
and no root is needed; apt-get and dpkg-deb must be there, with package sources that have arm64 (as
Debian's do). About 190 MB are downloaded, once. ``python`` is a script of this machine, because a
child process of an emulated one is started by the kernel, which runs only its own kind.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

QEMU = "qemu-aarch64-static"
CPU = "cortex-a72"
CORES = 2
CPUINFO = """processor\t: {core}
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
"""What Linux says of each core of a Cortex-A72. XNNPACK believes it, the host's x86 flags too, and
then runs kernels that this processor lacks."""

DEBIAN = ("python3", "libstdc++6")
RUNTIMES = ("litert", "tvm-runtime")
"""Extras of the project, installed beside what it needs anyway."""

PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
CHECKOUT = Path(__file__).resolve().parents[1]


class Unavailable(Exception):
    """This machine cannot make the userland; the sentence says what is missing."""


def prepare(folder: Path) -> Path:
    """Make the userland in ``folder`` if it is not there yet; answers its ``python``.

    Raises:
        Unavailable: a tool, a package or the network is missing.
    """
    python = folder.resolve() / "python"
    if python.is_file():
        return python
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not installed: this works on Debian and its kin")
    root = folder.resolve() / "root"
    root.mkdir(parents=True, exist_ok=True)
    qemu = shutil.which(QEMU) or _own_qemu(folder.resolve())
    _debian(folder.resolve() / "apt", root)
    version = _python_version(root)
    _wheels(root / "site", version)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text("".join(CPUINFO.format(core=n) for n in range(CORES)))
    python.write_text(
        f"#!/bin/sh\nPYTHONHOME='{root}/usr' PYTHONPATH='{root}/site:{CHECKOUT}'"
        f" exec '{qemu}' -cpu {CPU} -L '{root}' -0 '{python}'"
        f" '{root}/usr/bin/python{version}' \"$@\"\n"
    )
    python.chmod(0o755)
    return python


def _own_qemu(folder: Path) -> str:
    """The emulator alone, out of its package."""
    place = folder / "qemu"
    place.mkdir(exist_ok=True)
    _call(["apt-get", "download", "qemu-user-static"], place)
    package = next(place.glob("*.deb"))
    _call(["dpkg-deb", "--extract", str(package), "."], place)
    kept = folder / QEMU
    (place / "usr/bin" / QEMU).rename(kept)  # the package has emulators for thirty processors
    shutil.rmtree(place)
    return str(kept)


def _debian(apt: Path, root: Path) -> None:
    """Python for AArch64 with all that it needs, by apt with a state of its own."""
    (apt / "lists/partial").mkdir(parents=True, exist_ok=True)
    (apt / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": str(apt),
        "Dir::State::status": str(apt / "status"),
        "Dir::Cache": str(apt / "cache"),
        "APT::Sandbox::User": "",
    }
    tool = ["apt-get", *(word for item in settings.items() for word in ("-o", "=".join(item)))]
    _call([*tool, "update"], apt)
    fetch = ["install", "--download-only", "--yes", "--no-install-recommends", *DEBIAN]
    _call([*tool, *fetch], apt)
    for package in (apt / "cache/archives").glob("*.deb"):
        _call(["dpkg-deb", "--extract", str(package), str(root)], apt)
    shutil.rmtree(apt)


def _python_version(root: Path) -> str:
    """``3.11``: Debian's, whatever runs this."""
    return (root / "usr/bin/python3").readlink().name.removeprefix("python")


def _wheels(site: Path, version: str) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for extra in RUNTIMES for name in project["optional-dependencies"][extra]]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    command += ["--python-version", version, *platforms, "--target", str(site)]
    command += [*project["dependencies"], *extras]
    _call(command, site.parent)


def _call(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unavailable(f"{' '.join(command[:2])} … fails: {reason}")


def main() -> int:
    """Make the folder, and say how to use it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    try:
        python = prepare(parser.parse_args().folder)
    except Unavailable as error:
        print(f"no AArch64 userland: {error}", file=sys.stderr)
        return 1
    print(f"{python} -m harness parity ARTIFACT")
    return 0


if __name__ == "__main__":
    sys.exit(main())
