"""PyTorch on the CPU (https://pytorch.org, BSD-3), without the model class.

Runs two kinds of ``.pt2`` file: a captured graph (format ``torch_export``), operator by operator,
and a library that AOTInductor compiled from one (``torch_aoti``), which fits only CPUs that have
the instructions it was compiled for. Needs torch alone: no torchao, no compiler. Tensors: image
(n, 3, h, w), logits (n, priors, classes), offsets (n, priors, 4), float32.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import model_file
from harness.cpu_flags import cpu_flags
from harness.errors import ArtifactDamaged, BadInput, Unsupported, first_line
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
from runners._profile_torch import profile
from runners._trace_torch import trace

Call = Callable[[Any], Any]

_CPU_FLAGS = {
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_TILE": "amx_tile",
}
"""Inductor's names of instruction sets, with the flag in ``/proc/cpuinfo`` that promises each."""


@RUNNERS.register
class TorchCpu(Runner):
    """torch with as many OpenMP threads as asked for."""

    name = "torch_cpu"
    formats = frozenset({"torch_export", "torch_aoti"})
    modules = ("torch",)
    extra = "torch"

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the file.

        Raises:
            ArtifactDamaged: not a file of the format that its manifest says.
            Unsupported: it was compiled for a CPU with instructions that this one lacks.
        """
        if "torch" not in sys.modules:
            os.environ["OMP_NUM_THREADS"] = str(options.threads)
        torch = require("torch", extra=self.extra)
        torch.set_num_threads(options.threads)
        with contextlib.suppress(RuntimeError):  # it can be set once, and an earlier open did
            torch.set_num_interop_threads(1)
        path = model_file(artifact, folder)
        load = _load_package if artifact.format == "torch_aoti" else _load_graph
        try:
            call = load(torch, path)
        except (Unsupported, MemoryError):
            raise
        except Exception as error:  # a broken file fails in many ways inside torch
            made_with = artifact.toolchain.get("torch", "another version")
            raise ArtifactDamaged(
                f"{path} cannot be loaded as {artifact.format} ({first_line(error)}): it was made"
                f" with torch {made_with}, this is {torch.__version__};"
                f" export {artifact.model} again"
            ) from error
        return TorchSession(torch, call, artifact)

    def profile(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Sequence[NDArray[Any]],
    ) -> Sequence[Operator]:
        """By torch.profiler.

        Raises:
            Unsupported: a compiled library, which is one operator to torch.
        """
        if artifact.format == "torch_aoti":
            raise Unsupported(
                "AOTInductor compiles the network into one library, in which torch's profiler sees"
                " no operators: profile the export with package=export"
            )
        with self.open(artifact, folder, options) as session:
            return profile(session.run, images)

    def trace(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Iterable[NDArray[Any]],
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Node by node.

        Raises:
            Unsupported: a compiled library, which has no layers any more.
        """
        if artifact.format == "torch_aoti":
            raise Unsupported(
                "AOTInductor compiles the network into one library without layers: compare the"
                " export with package=export"
            )
        torch = require("torch", extra=self.extra)
        torch.set_num_threads(options.threads)
        return trace(_load_graph(torch, model_file(artifact, folder)), images)


class TorchSession(Session):
    """One loaded file."""

    def __init__(self, torch: Any, call: Call, artifact: Artifact) -> None:
        self._torch = torch
        self._call: Call | None = call
        self._shape = artifact.inputs[0].shape
        self._answer = ANSWERS[artifact.output_kind]
        self.versions: Mapping[str, str] = {"torch": torch.__version__}

    def run(self, images: NDArray[Any]) -> Outputs:
        """Run one batch of the file's own size. The answer's arrays are the caller's.

        Raises:
            BadInput: another shape or data type than the file's input.
        """
        if images.shape != self._shape or images.dtype != np.float32:
            raise BadInput(
                f"the file takes float32 images of shape {self._shape}, got {images.dtype} of"
                f" shape {images.shape}: prepare them as the manifest's input tensor says"
            )
        if self._call is None:
            raise BadInput("the session is closed: open the artifact again")
        with self._torch.inference_mode():
            answer = self._call(self._torch.from_numpy(images))
        return self._answer(*(tensor.numpy() for tensor in answer))

    def close(self) -> None:
        """Free the weights."""
        self._call = None


def _load_graph(torch: Any, path: Path) -> Call:
    # registers the operators of a quantized graph, which torch itself does not do at import
    require("torch.ao.quantization.fx._decomposed", extra="torch")
    module: Call = torch.export.load(path).module(check_guards=False)
    return module


def _load_package(_torch: Any, path: Path) -> Call:
    _refuse_foreign(path, _metadata(path))
    inductor = require("torch._inductor", extra="torch")
    with warnings.catch_warnings():
        # torch.jit's own import, on the way to torch._inductor
        warnings.filterwarnings("ignore", r"`torch\.jit\.script")
        package: Call = inductor.aoti_load_package(str(path), run_single_threaded=True)
    return package


def _metadata(path: Path) -> dict[str, str]:
    """What the compiler wrote down about the machine it compiled for."""
    with zipfile.ZipFile(path) as package:
        for name in package.namelist():
            if name.endswith("wrapper_metadata.json"):
                found: dict[str, str] = json.loads(package.read(name))
                return found
    raise ValueError("the archive holds no compiled model")


def _refuse_foreign(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise Unsupported where running the library would end in an illegal instruction."""
    machine = metadata.get("AOTI_MACHINE", platform.machine())
    lacks = [machine] if machine != platform.machine() else []
    flags = cpu_flags()
    if flags and not lacks:
        wanted = metadata.get("AOTI_CPU_ISA", "").split()
        lacks = [name for name in wanted if _CPU_FLAGS.get(name, "") not in {"", *flags}]
    if lacks:
        raise Unsupported(
            f"{path} was compiled for a CPU with {', '.join(lacks)}, which this one is not:"
            " export again on this machine, or with package=export"
        )
