"""From a lowered module to a shared library."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters import _tvm_target
from harness.errors import ExportFailed
from harness.extras import require

SLOW_PASSES = ("s_tir.CompactBufferAllocation",)
"""It shrinks temporary buffers; our kernels' are as small as they can be, and it needs minutes."""


def compile_module(module: Any, target: _tvm_target.CpuTarget) -> Any:
    """The ``relax.Executable`` of ``module``. TVM raises what its passes raise."""
    tvm = require("tvm", extra="tvm")
    with tvm.transform.PassContext(disabled_pass=SLOW_PASSES):
        return tvm.compile(module, target=target.tvm)


def build(module: Any, target: _tvm_target.CpuTarget, path: Path) -> None:
    """Compile ``module`` and link it to ``path``.

    Raises:
        ExportFailed: a pass, LLVM or the linker refused.
    """
    try:
        compile_module(module, target).export_library(str(path), fcompile=link)
    except ExportFailed:
        raise
    except Exception as error:  # TVM's passes raise many types
        reason = str(error).strip().splitlines() or [""]
        raise ExportFailed(
            f"TVM cannot build for {target.text}: {type(error).__name__}: {reason[-1]}"
        ) from error


def link(output: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
    """Link a shared library of object files, as TVM's ``fcompile``.

    Raises:
        ExportFailed: no compiler driver, or what it said.
    """
    compiler = _tvm_target.linker()
    if compiler is None:
        raise ExportFailed(f"no C compiler to link {output} with: install the package gcc")
    command = [compiler, "-shared", "-fPIC", "-o", output, *objects, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportFailed(f"{compiler} cannot link {output}: {reason[0]}")
