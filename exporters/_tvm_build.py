"""From a lowered module to a shared library."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exporters import _tvm_target, _tvm_tir
from harness.errors import ExportFailed
from harness.extras import require

SLOW_PASSES = ("s_tir.CompactBufferAllocation",)
"""It shrinks temporary buffers; our kernels' are as small as they can be, and it needs minutes."""

MERGING_PASSES = ("tirx.StorageRewrite",)
"""It lets buffers share memory, and then those of our register tiles do lie in memory. Kernels that
TVM scheduled need it: it takes their allocations out of the loops."""


ELF_NAMES = {"x86_64": "x64", "aarch64": "AArch64", "i686": "x86", "armv7l": "ARM", "arm": "ARM"}
"""What pyelftools calls the machine of a triple."""


PLAN = "StaticPlanBlockMemory"
"""The pass that decides which activations share memory."""


def compile_module(
    module: Any, target: _tvm_target.CpuTarget, planned: Callable[[Any], None] | None = None
) -> Any:
    """The ``relax.Executable`` of ``module``. TVM raises what its passes raise.

    ``planned`` is given the module behind the pass `PLAN`.
    """
    tvm = require("tvm", extra="tvm")

    @tvm.instrument.pass_instrument
    class Look:
        def run_after_pass(self, module: Any, info: Any) -> None:
            if planned is not None and info.name == PLAN:
                planned(module)

    with tvm.transform.PassContext(disabled_pass=_left_out(module), instruments=[Look()]):
        return tvm.compile(module, target=target.tvm)


def _left_out(module: Any) -> tuple[str, ...]:
    """Names of TVM's passes that do not run over a module."""
    functions = [function for _, function in module.functions_items()]
    kernel = require("tvm.tirx", extra="tvm").PrimFunc
    own = all(_tvm_tir.OWN in f.attrs for f in functions if isinstance(f, kernel))
    return (*SLOW_PASSES, *(MERGING_PASSES if own else ()))


def activation_bytes(module: Any) -> int:
    """What a planned module allocates for activations and answers in a run.

    Temporary buffers inside kernels, and weights, are not in it.
    """
    tvm, relax = require("tvm", extra="tvm"), require("tvm.relax", extra="tvm")
    storage = tvm.ir.Op.get("relax.memory.alloc_storage")
    tensor = tvm.ir.Op.get("relax.builtin.alloc_tensor")
    found: list[int] = []

    def visit(node: Any) -> None:
        if not isinstance(node, relax.Call) or node.op not in (storage, tensor):
            return
        extents = [int(extent) for extent in node.args[0].values]
        item = 1 if node.op == storage else np.dtype(node.args[1].value).itemsize
        found.append(item * math.prod(extents))

    relax.analysis.post_order_visit(module["main"], visit)
    return sum(found)


def build(module: Any, target: _tvm_target.CpuTarget, path: Path) -> dict[str, str]:
    """Compile ``module``, link it to ``path``, and look at the result.

    Returns:
        ``machine`` and ``needs`` (libraries) of the file's ELF header and dynamic section, and its
        ``activation-bytes``, see `activation_bytes`.

    Raises:
        ExportFailed: a pass, LLVM or the linker refused, or the library is another machine's.
    """
    sizes: list[int] = []
    try:
        compile_module(
            module, target, lambda planned: sizes.append(activation_bytes(planned))
        ).export_library(str(path), fcompile=partial(link, target=target.name))
    except ExportFailed:
        raise
    except Exception as error:  # TVM's passes raise many types
        reason = str(error).strip().splitlines() or [""]
        raise ExportFailed(
            f"TVM cannot build for {target.text}: {type(error).__name__}: {reason[-1]}"
        ) from error
    return {**examine(path, target), "activation-bytes": str(sum(sizes))}


def link(output: str, objects: Sequence[str], options: Sequence[str] = (), *, target: str) -> None:
    """Link a shared library of object files, as TVM's ``fcompile``.

    Raises:
        ExportFailed: no compiler driver, or what it said.
    """
    compiler = _tvm_target.linker(target)
    if compiler is None:
        raise ExportFailed(f"linking {output} for {target} {_tvm_target.no_linker(target)}")
    command = [compiler, "-shared", "-fPIC", "-o", output, *objects, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportFailed(f"{compiler} cannot link {output}: {reason[0]}")


def examine(path: Path, target: _tvm_target.CpuTarget) -> dict[str, str]:
    """Machine and needed libraries of a shared library, as ``readelf -hd`` shows them.

    Raises:
        ExportFailed: it is not a library for the target's architecture.
    """
    elffile = require("elftools.elf.elffile", extra="tvm")
    with path.open("rb") as stream:
        elf = elffile.ELFFile(stream)
        machine = str(elf.get_machine_arch())
        dynamic = elf.get_section_by_name(".dynamic")
        needs = [
            tag.needed
            for tag in (dynamic.iter_tags() if dynamic else ())
            if tag.entry.d_tag == "DT_NEEDED"
        ]
    architecture = target.triple.partition("-")[0]
    wanted = ELF_NAMES.get(architecture)
    if wanted is not None and machine != wanted:
        raise ExportFailed(f"{path.name} was linked for {machine}, not for {target.text}")
    return {"machine": machine, "needs": " ".join(needs)}
