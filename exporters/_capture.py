"""What every exporter that starts from torch's captured graph shares.

`torch.export` turns a network into a graph of aten operators for one fixed input size; ONNX, PT2E
and AOTInductor all start from it. The input is ``image`` (n, 3, h, w) float32, the outputs are
``logits`` (n, priors, classes) and ``offsets`` (n, priors, 4), float32.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DetbenchError, ExportFailed, first_line
from harness.extras import require
from harness.interfaces import ExportJob
from harness.records import ModelSpec, Scalar, TensorSpec

INPUT = "image"
OUTPUTS = ("logits", "offsets")

_KNOWN_WARNINGS = (
    # copy.deepcopy of an ExportedProgram, which torch.onnx.export does, rebuilds its tree specs
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # torch.export.save of a weight in channels_last, which it stores and restores whole
    r"No complete tensor found in the group!",
    # PT2E leaves a pooling in float where what it reads is float, such as a batch norm after ReLU
    r"The input of maxpool2d is not quantized",
    # importing torch.utils.mkldnn, which Inductor's freezing passes do
    r"`torch\.jit\.script_method` is deprecated",
    r"`torch\.jit\.script` is deprecated",
)
_KNOWN_LOGGERS = (
    # says that torchvision's own operators are left out, at every ONNX export
    "torch.onnx._internal.exporter._registration",
    # says at import that torchao's CUDA kernels cannot be loaded on a CPU torch
    "torchao",
    # says that an enum of torchao's is registered in an old way
    "torch.utils._pytree",
)


def capture(network: Any, spec: ModelSpec, batch: int = 1) -> Any:
    """The network's graph, an ``ExportedProgram`` for one input size.

    The example input owns its memory: a view would drag its base into every saved file.
    """
    torch = require("torch", extra="torch")
    image = torch.zeros(batch, 3, spec.image.height, spec.image.width)
    with torch.no_grad():
        return torch.export.export(network, (image,))


def tensors(
    spec: ModelSpec, batch: int = 1
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of every artifact made here."""
    shape = (batch, 3, spec.image.height, spec.image.width)
    image = TensorSpec(name=INPUT, dtype="float32", shape=shape, layout="NCHW")
    outputs = tuple(
        TensorSpec(
            name=name, dtype="float32", shape=(batch, len(spec.priors), values), layout="NPC"
        )
        for name, values in zip(OUTPUTS, (len(spec.labels), 4), strict=True)
    )
    return (image,), outputs


def calibration_images(job: ExportJob) -> Iterator[NDArray[np.float32]]:
    """One pass over the calibration images, each checked.

    Raises:
        ExportFailed: there are none, or one is not float32 (1, 3, h, w).
    """
    expected = (1, 3, job.spec.image.height, job.spec.image.width)
    image = None
    for image in job.calibration() if job.calibration is not None else ():
        if image.shape != expected or image.dtype != np.float32:
            raise ExportFailed(
                f"a calibration image is {image.dtype} {image.shape}, {job.spec.name} needs"
                f" float32 {expected}: prepare it with the model's own image spec"
            )
        yield image
    if image is None:
        raise ExportFailed(
            "int8 needs calibration images and got none: name a data set that has some"
        )


def check_calibration(job: ExportJob) -> None:
    """Look at the first calibration image, before any long work. Raises as the pass does."""
    next(calibration_images(job))


def bad_choice(name: str, value: Scalar, allowed: Mapping[str, object]) -> str | None:
    """Why ``value`` cannot be the option ``name``, or None."""
    if value in allowed:
        return None
    return f"option {name}={value} is unknown: give {' or '.join(allowed)}"


def bad_count(name: str, value: Scalar, low: int, high: int) -> str | None:
    """Why ``value`` cannot be the whole number ``name``, or None."""
    if isinstance(value, int) and low <= value <= high:
        return None
    return f"option {name}={value} is out of range: give a whole number from {low} to {high}"


@contextmanager
def toolchain(tool: str, model: str, advice: str = "") -> Iterator[None]:
    """Run a foreign tool: its known noise is silent, its errors become one sentence, which ends
    with ``advice``.

    Raises:
        ExportFailed: whatever the tool raised, by its first line. Our own errors pass.
    """
    with ExitStack() as quiet:
        quiet.enter_context(warnings.catch_warnings())
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for name in _KNOWN_LOGGERS:
            quiet.enter_context(_muted(logging.getLogger(name)))
        try:
            yield
        except (DetbenchError, MemoryError):
            raise
        except Exception as error:
            said = f"{tool} cannot export {model}: {first_line(error)}"
            raise ExportFailed(f"{said}; {advice}" if advice else said) from error


@contextmanager
def _muted(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
