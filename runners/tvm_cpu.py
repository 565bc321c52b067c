"""Apache TVM's Relax virtual machine on the CPU (https://tvm.apache.org, Apache-2.0).

Runs the shared libraries that the ``tvm_*`` exporters make; needs the TVM runtime only.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import machine
from harness.artifacts import model_file
from harness.cpu_flags import cpu_flags
from harness.errors import ArtifactDamaged, Unsupported
from harness.extras import require
from harness.interfaces import (
    ANSWERS,
    RUNNERS,
    Operator,
    Outputs,
    Runner,
    RunOptions,
    Session,
)
from harness.records import Artifact
from runners._profile_tvm import profile
from runners._trace_tvm import trace
from runners._tvm_fit import Place, check
from runners._tvm_runtime import FASTEST_CORES, import_runtime

ALIGNMENT = 64
"""Bytes: generated code loads whole vectors, so an input must start at such an address."""


@RUNNERS.register
class TvmCpu(Runner):
    """``relax.VirtualMachine`` with exactly the threads asked for."""

    name = "tvm_cpu"
    formats = frozenset({"tvm"})
    modules = ("tvm",)
    extra = "tvm-runtime"

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the library.

        Raises:
            ArtifactDamaged: truncated, or no module.
            Unsupported: made for another machine or by another TVM, or TVM's pool refuses the
                number of threads.
        """
        path = model_file(artifact, folder)
        # Read once, when TVM's thread pool starts; it is also the pool's upper bound.
        os.environ["TVM_NUM_THREADS"] = str(options.threads)
        tvm = import_runtime()
        check(path, artifact, here(str(tvm.__version__)))
        _set_threads(options.threads)
        return TvmSession(tvm, path, artifact)

    def profile(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Sequence[NDArray[Any]],
    ) -> Sequence[Operator]:
        """By the virtual machine's calls before and after each kernel."""
        with self.open(artifact, folder, options) as session:
            assert isinstance(session, TvmSession)
            return profile(session.machine, session.run, images, time.perf_counter_ns)

    def trace(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Iterable[NDArray[Any]],
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Of the layers that the manifest has places for."""
        if not artifact.layer_outputs:
            raise Unsupported(
                f"{folder} does not say where its layers' results lie: export it again"
            )
        session = self.open(artifact, folder, options)
        assert isinstance(session, TvmSession)
        return trace(session.machine, session.run, artifact.layer_outputs, images)


class TvmSession(Session):
    """One loaded module. Its outputs are views of memory that TVM allocates on every run."""

    def __init__(self, tvm: Any, path: Path, artifact: Artifact) -> None:
        device = tvm.cpu()
        try:
            library = tvm.runtime.load_module(str(path))
            machine = tvm.runtime.vm.VirtualMachine(library, device)
            self._main = machine["main"]
        except Exception as error:  # the loader raises several types, none of them documented
            reason = str(error).strip().splitlines() or [""]
            raise ArtifactDamaged(
                f"{path} is not a module that TVM can load ({reason[-1]}):"
                f" export {artifact.model} again"
            ) from error
        self.machine = machine
        self._from_dlpack = tvm.runtime.from_dlpack
        self._input = tvm.runtime.empty(artifact.inputs[0].shape, "float32", device)
        self._staging = np.from_dlpack(self._input)
        self._answer = ANSWERS[artifact.output_kind]
        self.versions = {"apache-tvm": str(tvm.__version__)}

    def run(self, images: NDArray[Any]) -> Outputs:
        """Run one batch; an aligned array is passed without a copy."""
        if images.ctypes.data % ALIGNMENT == 0 and images.flags.c_contiguous:
            given = self._from_dlpack(images)
        else:
            np.copyto(self._staging, images)
            given = self._input
        return self._answer(*map(np.from_dlpack, self._main(given)))

    def close(self) -> None:
        """Let go of the module."""
        self._main = self.machine = None


def here(version: str) -> Place:
    """This machine, with a version of TVM."""
    return Place(
        "this machine",
        platform.machine(),
        lambda: machine.machine_record().cpu,
        cpu_flags(),
        version,
    )


def _set_threads(threads: int) -> None:
    """Make TVM's pool exactly ``threads`` wide, also in a process where it already runs."""
    get_function = require("tvm_ffi", extra="tvm-runtime").get_global_func
    get_function("runtime.config_threadpool")(FASTEST_CORES, threads)
    given = int(get_function("runtime.NumThreads")())
    if given != threads:
        raise Unsupported(
            f"TVM's thread pool takes {given} threads, not {threads}:"
            f" ask for at most {given} in this process"
        )
