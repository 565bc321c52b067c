"""ONNX Runtime on the CPU (https://onnxruntime.ai, MIT).

Runs ``.onnx`` files with the CPU execution provider alone; needs neither onnx nor torch. Tensors
are found by the names in the manifest; image (n, 3, h, w) float32, outputs of any kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import model_file
from harness.errors import ArtifactDamaged, BadInput, first_line
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
from harness.records import Artifact, TensorSpec, layout_of
from runners._profile_ort import profile
from runners._trace_ort import trace


@RUNNERS.register
class OrtCpu(Runner):
    """``InferenceSession`` with as many intra-op threads as asked for, run sequentially."""

    name = "ort_cpu"
    formats = frozenset({"onnx"})
    modules = ("onnxruntime",)
    extra = "ort"

    def describe(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """What the file's own inputs and outputs say.

        Raises:
            ArtifactDamaged: not an ONNX file.
            BadInput: a tensor of another kind than numbers.
        """
        session, _ = self._load(path, RunOptions(), "export it again")
        return _specs(session.get_inputs()), _specs(session.get_outputs())

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the file and let ONNX Runtime optimize it.

        Raises:
            ArtifactDamaged: not an ONNX file, or not the one that the manifest describes.
        """
        path = model_file(artifact, folder)
        session, version = self._load(path, options, f"export {artifact.model} again")
        return OrtSession(session, path, artifact, version)

    def _load(self, path: Path, options: RunOptions, advice: str) -> tuple[Any, str]:
        """The session and the runtime's version."""
        ort = require("onnxruntime", extra=self.extra)
        try:
            session = _session(ort, path, _settings(ort, options))
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's own kinds share no base but this
            raise ArtifactDamaged(
                f"{path} cannot be loaded by ONNX Runtime {ort.__version__}"
                f" ({first_line(error)}): {advice}"
            ) from error
        return session, str(ort.__version__)

    def profile(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Sequence[NDArray[Any]],
    ) -> Sequence[Operator]:
        """By the profile that ONNX Runtime writes of itself."""
        ort = require("onnxruntime", extra=self.extra)
        path = model_file(artifact, folder)
        return profile(
            _settings(ort, options),
            lambda settings: _session(ort, path, settings),
            artifact.inputs[0].name,
            images,
        )

    def trace(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Iterable[NDArray[Any]],
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """By making them outputs of the file."""
        ort = require("onnxruntime", extra=self.extra)
        settings = _settings(ort, options)
        return trace(
            model_file(artifact, folder),
            lambda data: _session(ort, data, settings),
            artifact.inputs[0].name,
            images,
        )


def _settings(ort: Any, options: RunOptions) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3  # errors: a warning here is about speed on other devices
    return settings


def _session(ort: Any, model: Path | bytes, settings: Any) -> Any:
    given = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(given, settings, providers=["CPUExecutionProvider"])


class OrtSession(Session):
    """One ``InferenceSession``; each answer's arrays are the caller's."""

    def __init__(self, session: Any, path: Path, artifact: Artifact, version: str) -> None:
        (image,) = artifact.inputs
        wanted = [spec.name for spec in artifact.outputs]
        found = {node.name: node.shape for node in session.get_inputs()}
        if not _fits(found.get(image.name, ()), image.shape):
            raise ArtifactDamaged(
                f"{path} has the inputs {found}, its manifest says {image.name} {image.shape}:"
                " use the manifest that was written with this file"
            )
        missing = set(wanted) - {node.name for node in session.get_outputs()}
        if missing:
            raise ArtifactDamaged(
                f"{path} has no output {', '.join(sorted(missing))}:"
                " use the manifest that was written with this file"
            )
        self._run: Any = session.run
        self._input, self._outputs, self._shape = image.name, wanted, image.shape
        self._answer, self._dtype = ANSWERS[artifact.output_kind], np.dtype(image.dtype)
        self.versions: Mapping[str, str] = {"onnxruntime": version}

    def run(self, images: NDArray[Any]) -> Outputs:
        """Run one batch of the file's own size.

        Raises:
            BadInput: another shape or data type than the file's input.
        """
        if images.shape != self._shape or images.dtype != self._dtype:
            raise BadInput(
                f"the file takes {self._dtype} images of shape {self._shape}, got {images.dtype} of"
                f" shape {images.shape}: prepare them as the manifest's input tensor says"
            )
        if self._run is None:
            raise BadInput("the session is closed: open the artifact again")
        return self._answer(*self._run(self._outputs, {self._input: images}))

    def close(self) -> None:
        """Free the weights and end the threads."""
        self._run = None


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Tensor specs; a size that the file leaves open is 0, the layout a guess by the axes."""
    found = []
    for node in nodes:
        if node.type not in _DTYPES:
            raise BadInput(f"tensor '{node.name}' is {node.type}: expected one of numbers")
        shape = tuple(size if isinstance(size, int) else 0 for size in node.shape)
        layout = layout_of(shape)
        found.append(
            TensorSpec(name=node.name, dtype=_DTYPES[node.type], shape=shape, layout=layout)
        )
    return tuple(found)


def _fits(found: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    """Whether a model's input takes ``shape``; a size that is not a number takes any."""
    return len(found) == len(shape) and all(
        not isinstance(size, int) or size == asked for size, asked in zip(found, shape, strict=True)
    )
