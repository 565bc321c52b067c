"""LiteRT, formerly TensorFlow Lite, on the CPU (https://ai.google.dev/edge/litert, Apache-2.0).

Runs .tflite files through ``ai_edge_litert.interpreter`` with the XNNPACK delegate, which the
runtime applies by default; needs neither TensorFlow nor torch. Tensors are found by the names in
the manifest; image (n, h, w, 3), outputs of any kind, float32 or integer as the file says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import model_file
from harness.errors import ArtifactDamaged, BadInput, Unsupported
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
from runners._profile_litert import profile
from runners._trace_litert import trace


@RUNNERS.register
class LitertCpu(Runner):
    """``Interpreter`` with as many XNNPACK threads as asked for."""

    name = "litert_cpu"
    formats = frozenset({"tflite"})
    modules = ("ai_edge_litert",)
    extra = "litert"

    def describe(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """What the file's own inputs and outputs say, by the names of its signature if it has one.

        Raises:
            ArtifactDamaged: not a TensorFlow Lite file.
            Unsupported: it holds an operator that this runtime does not know.
        """
        litert = require("ai_edge_litert.interpreter", extra=self.extra)
        interpreter = _load(litert, path, "export it", 1)
        keys = _signature(interpreter)
        inputs, outputs = (
            tuple(_spec(detail, keys) for detail in side)
            for side in (interpreter.get_input_details(), interpreter.get_output_details())
        )
        return inputs, outputs

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the file.

        Raises:
            ArtifactDamaged: not a TensorFlow Lite file, or not the one that the manifest describes.
            Unsupported: the file holds an operator that this runtime does not know.
        """
        litert = require("ai_edge_litert.interpreter", extra=self.extra)
        path = model_file(artifact, folder)
        loaded = _load(litert, path, f"export {artifact.model}", options.threads)
        return LitertSession(loaded, path, artifact)

    def profile(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Sequence[NDArray[Any]],
    ) -> Sequence[Operator]:
        """Each operator alone, on made-up values: the interpreter has no profiler."""
        path = model_file(artifact, folder)
        return profile(path, options.threads, len(images))

    def trace(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Iterable[NDArray[Any]],
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """From an interpreter that keeps all tensors."""
        return trace(model_file(artifact, folder), options.threads, images)


class LitertSession(Session):
    """One interpreter. Its memory is allocated once; each answer is a copy."""

    def __init__(self, interpreter: Any, path: Path, artifact: Artifact) -> None:
        (image,) = artifact.inputs
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self._interpreter = interpreter
        keys = _signature(interpreter)
        self._image_index = _find(inputs, image, path, keys)
        self._output_indices = [_find(outputs, spec, path, keys) for spec in artifact.outputs]
        self._answer = ANSWERS[artifact.output_kind]
        self._expected = (image.shape, np.dtype(image.dtype))
        self.versions: Mapping[str, str] = {"ai-edge-litert": metadata.version("ai-edge-litert")}

    def run(self, images: NDArray[Any]) -> Outputs:
        """Run one batch of the file's own size.

        Raises:
            BadInput: another shape or data type than the file's input.
        """
        if (images.shape, images.dtype) != self._expected:
            shape, dtype = self._expected
            raise BadInput(
                f"the file takes {dtype} images of shape {shape}, got {images.dtype} of shape"
                f" {images.shape}: prepare them as the manifest's input tensor says"
            )
        interpreter = self._interpreter
        interpreter.set_tensor(self._image_index, images)
        interpreter.invoke()
        return self._answer(*(interpreter.get_tensor(index) for index in self._output_indices))

    def close(self) -> None:
        """Free the tensors and the delegate's packed weights."""
        self._interpreter = None


def _signature(interpreter: Any) -> dict[str, str]:
    """Keys of the file's only signature by the names of their tensors; empty where there is none.

    Tensors are named by the converter (``StatefulPartitionedCall:1``), keys by people.
    """
    if len(interpreter.get_signature_list()) != 1:
        return {}
    runner = interpreter.get_signature_runner()
    sides = (runner.get_input_details(), runner.get_output_details())
    return {detail["name"]: key for side in sides for key, detail in side.items()}


def _spec(detail: Mapping[str, Any], keys: Mapping[str, str]) -> TensorSpec:
    """A tensor's spec; a size that the file leaves open is 0."""
    signature = detail.get("shape_signature", detail["shape"])
    shape = tuple(max(int(size), 0) for size in signature)
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=keys.get(detail["name"], detail["name"]),
        dtype=np.dtype(detail["dtype"]).name,
        shape=shape,
        layout=layout_of(shape),
        scale=float(scale) or None,
        zero_point=int(zero_point) if scale else None,
    )


def _load(litert: Any, path: Path, advice: str, threads: int) -> Any:
    again = f"{advice} again"
    try:
        interpreter = litert.Interpreter(model_path=str(path), num_threads=threads)
    except ValueError as error:  # what the runtime's flatbuffer verifier raises
        raise ArtifactDamaged(
            f"{path} is not a TensorFlow Lite file ({_last_line(error)}): {again}"
        ) from error
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:  # an operator without a kernel, or shapes that do not fit it
        raise Unsupported(
            f"LiteRT cannot prepare {path} ({_last_line(error)}): {again} with this version"
        ) from error
    return interpreter


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]


def _find(
    details: Sequence[Mapping[str, Any]], spec: TensorSpec, path: Path, keys: Mapping[str, str]
) -> int:
    """Index of the tensor that ``spec`` names, by its key or its own name, and is as it says."""
    found = {keys.get(detail["name"], detail["name"]): detail for detail in details}
    found |= {detail["name"]: detail for detail in details}
    if spec.name not in found:
        raise ArtifactDamaged(
            f"{path} has no input or output '{spec.name}' (it has {', '.join(sorted(found))}):"
            " use the manifest that was written with this file"
        )
    detail = found[spec.name]
    shape = tuple(int(size) for size in detail["shape"])
    dtype = np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    # a scale of 1 and none mean the same to what a tensor holds
    scale = scale or 1.0
    told = (spec.shape, spec.dtype, spec.scale or 1.0, spec.zero_point or 0)
    if (shape, dtype) != told[:2] or not np.isclose(scale, told[2]) or zero_point != told[3]:
        raise ArtifactDamaged(
            f"{path}: '{spec.name}' is {dtype} {shape} with scale {scale:g}, zero point"
            f" {zero_point}; its manifest says {spec.dtype} {spec.shape}, {told[2]:g}, {told[3]}:"
            " use the manifest that was written with this file"
        )
    return int(detail["index"])
