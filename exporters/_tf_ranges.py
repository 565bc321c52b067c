"""Ranges of a TensorFlow Lite file's activations over the calibration images.

TensorFlow's own calibrator is not used. It takes several times as long; it knows extremes only, so
that one image in a thousand decides; and it reads tensors after the next operator ran, so that
where an ADD works in place its input gets the range of the sum (TensorFlow 2.21).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters._tf_file import operator_names, parse, schema, serialize
from harness.errors import ExportFailed
from harness.extras import require
from harness.ranges import Observed, choose

SHARING = {"CONCATENATION", "MAX_POOL_2D", "MIRROR_PAD", "PAD", "RESHAPE", "TRANSPOSE"}
"""Operators whose int8 kernels need one scale for inputs and outputs."""


def with_ranges(data: bytes, images: Iterable[NDArray[np.float32]], method: str = "mse") -> bytes:
    """The float file ``data`` with a range at every tensor that depends on the image.

    Args:
        images: float32 (1, h, w, 3).
        method: one of `harness.ranges.METHODS`.

    Raises:
        ExportFailed: there are no images.
    """
    model = parse(data)
    (graph,) = model.subgraphs
    seen = observe(data, _activations(graph), images)
    for group in _groups(graph, operator_names(model), list(seen)):
        low, high = choose([seen[index] for index in group], method)
        for index in group:
            quantization = schema().QuantizationParametersT()
            quantization.min, quantization.max = [low], [high]
            graph.tensors[index].quantization = quantization
    return serialize(model)


def observe(
    data: bytes, tensors: list[int], images: Iterable[NDArray[np.float32]]
) -> dict[int, Observed]:
    """Run ``images`` through the float file and look at ``tensors`` after each.

    They are made outputs of the graph: then no later operator may overwrite them, and XNNPACK,
    which keeps inner tensors to itself, answers them.
    """
    model = parse(data)
    model.subgraphs[0].outputs = tensors
    model.signatureDefs = None  # it would name outputs that are no more
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    interpreter = litert.Interpreter(model_content=serialize(model), num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    (image_detail,) = interpreter.get_input_details()
    seen = {index: Observed() for index in tensors}
    generator = np.random.default_rng(0)
    empty = True
    for image in images:
        empty = False
        interpreter.set_tensor(image_detail["index"], image)
        interpreter.invoke()
        for index, observed in seen.items():
            observed.see(interpreter.get_tensor(index), generator)
    if empty:
        raise ExportFailed("there are no calibration images: name a data set that has some")
    return seen


def _activations(graph: Any) -> list[int]:
    """Indices of the float tensors that depend on the image."""
    float32 = schema().TensorType.FLOAT32
    indices = [*graph.inputs, *(index for item in graph.operators for index in item.outputs)]
    return [int(index) for index in indices if graph.tensors[index].type == float32]


def _groups(graph: Any, operator: list[str], tensors: list[int]) -> list[list[int]]:
    """``tensors``, together those that must have one scale."""
    group_of = {index: [index] for index in tensors}
    for name, item in zip(operator, graph.operators, strict=True):
        if name not in SHARING:
            continue
        linked = [int(index) for index in (*item.outputs, *item.inputs) if index in group_of]
        merged = sorted({index for member in linked for index in group_of[member]})
        group_of.update(dict.fromkeys(merged, merged))
    return list({id(group): group for group in group_of.values()}.values())
