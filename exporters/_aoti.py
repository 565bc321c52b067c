"""AOTInductor: a captured graph compiled to a shared library in a ``.pt2`` package.

https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html (BSD-3). Needs a C++ compiler
here and nothing but torch where it runs: no model class, no torchao. The code is for the CPU of
the machine that compiled it (``-march=native`` and the vector instructions Inductor found).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from harness.extras import require

NOTE = "compiled for the instruction set of the CPU that exported it: export again on another CPU"

SETTINGS: dict[str, Any] = {
    # Weights become constants, which lets Inductor prepack them; without it the pattern of a
    # quantized convolution is not matched and int8 runs as float between conversions.
    "freezing": True,
    # Else the number of threads of the exporting process is compiled into every loop.
    "cpp.dynamic_threads": True,
    # Two precompiled headers cost more than they save before the third export.
    "aot_inductor.precompile_headers": False,
    # Debug information would be a quarter of the file.
    "aot_inductor.enable_line_tables": False,
}


def missing_compiler(exporter: str) -> str | None:
    """Why nothing can be compiled here, or None."""
    wanted = os.environ.get("CXX") or "g++"
    if shutil.which(wanted):
        return None
    where = "the environment's CXX" if os.environ.get("CXX") else "the default"
    return (
        f"{exporter} compiles C++ and finds no '{wanted}' ({where}): install a compiler"
        f" (Debian: apt-get install g++), or export {exporter}:package=export, which needs none"
        " and runs slower"
    )


def compile_package(program: Any, path: Path) -> None:
    """Compile an ``ExportedProgram`` and write the package to ``path``."""
    torch = require("torch", extra="torch")
    inductor = require("torch._inductor", extra="torch")
    raw = path.with_suffix(".raw.pt2")
    with torch.no_grad():  # freezing is skipped, without a word, where gradients are on
        inductor.aoti_compile_and_package(
            program, package_path=str(raw), inductor_configs=dict(SETTINGS)
        )
    _without_sources(raw, path)
    raw.unlink()


def _without_sources(package: Path, path: Path) -> None:
    """Copy a package without the C++ sources that lie in it, which no loader reads."""
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".cpp"):
                new.writestr(entry, old.read(entry))
