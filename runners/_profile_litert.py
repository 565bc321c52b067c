"""Time by operator in LiteRT, whose Python interpreter has no profiler.

Each operator is cut into a model of its own, with its constants, and run by the same interpreter
with the same delegate. What the delegate gains by seeing neighbours together is not in it: the sum
was 0.90 to 0.95 of the whole model's time where it was compared.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.extras import require
from harness.interfaces import Operator

EXTRA = "litert"
IDENTIFIER = b"TFL3"


def profile(path: Path, threads: int, calls: int) -> list[Operator]:
    """Time each operator of a ``.tflite`` file ``calls`` times, after two calls to warm up."""
    litert = require("ai_edge_litert.interpreter", extra=EXTRA)
    found = []
    for number, (kind, model) in enumerate(cut(path.read_bytes())):
        interpreter = litert.Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
        _fill(interpreter)
        times = []
        for _ in range(calls + 2):
            started = time.perf_counter_ns()
            interpreter.invoke()
            times.append(float(time.perf_counter_ns() - started))
        found.append(Operator(f"{number} {kind}", kind, tuple(times[2:])))
    return found


def cut(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Kind and model of each operator of the first subgraph, in the order that they run."""
    schema = require("ai_edge_litert.schema_py_generated", extra=EXTRA)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if _is_code(code)}
    whole = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph = whole.subgraphs[0]
    for operator in graph.operators:
        code = whole.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        yield kind, _alone(schema, whole, graph, operator)


def _is_code(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _alone(schema: Any, whole: Any, graph: Any, operator: Any) -> bytes:
    """A flatbuffer with one operator: its constants stay, its other inputs become the model's."""
    model, part = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, b""
    model.operatorCodes = [whole.operatorCodes[operator.opcodeIndex]]
    model.buffers = [schema.BufferT()]
    part.name, part.tensors = b"main", []
    places: dict[int, int] = {-1: -1}
    given = []
    for index in (*operator.inputs, *operator.outputs):
        if index in places:
            continue
        tensor = copy.copy(graph.tensors[index])
        buffer = whole.buffers[tensor.buffer]
        tensor.buffer = 0
        if buffer.data is not None and len(buffer.data):
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        elif index in operator.inputs:
            given.append(len(part.tensors))
        places[index] = len(part.tensors)
        part.tensors.append(tensor)
    only = copy.copy(operator)
    only.opcodeIndex, only.intermediates = 0, None
    only.inputs = [places[index] for index in operator.inputs]
    only.outputs = [places[index] for index in operator.outputs]
    part.operators, part.inputs, part.outputs = [only], given, only.outputs
    model.subgraphs = [part]
    builder = require("flatbuffers", extra=EXTRA).Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _fill(interpreter: Any) -> None:
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), detail["shape"]
        values = (
            rng.integers(-100, 100, shape) if dtype.kind in "iu" else rng.normal(0, 1, shape)
        ).astype(dtype)
        interpreter.set_tensor(detail["index"], values)
