"""What a TensorFlow Lite file says about itself: tensors, operators, signature.

Read by the accessors that TensorFlow generates from its schema
(https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/compiler/mlir/lite/schema/schema.fbs).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from harness.errors import ExportFailed
from harness.extras import require
from harness.records import TensorSpec, layout_of

IDENTIFIER = b"TFL3"
OUTPUTS = ("logits", "offsets")


CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}


class Operator(NamedTuple):
    """One operator of a file.

    Attributes:
        name: as in the schema, ``CONV_2D``.
        inputs: data types of the inputs, absent ones left out.
        outputs: data types of the outputs.
        activation: fused activation, ``NONE`` where there is none.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activation: str


class Signature(NamedTuple):
    """The tensors behind the signature's keys."""

    image: TensorSpec
    outputs: tuple[TensorSpec, ...]


def schema() -> Any:
    """The module of accessors."""
    return require("tensorflow.lite.python.schema_py_generated", extra="tflite")


def parse(data: bytes) -> Any:
    """The whole file as a tree of plain objects, a ``ModelT``."""
    accessors = schema()
    return accessors.ModelT.InitFromObj(accessors.Model.GetRootAs(data, 0))


def serialize(model: Any) -> bytes:
    """The bytes of a ``ModelT``."""
    builder = require("flatbuffers", extra="tflite").Builder()
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def names(enum: Any) -> dict[int, str]:
    """Names by number of one of the schema's enumerations."""
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def operator_names(model: Any) -> list[str]:
    """Name of each operator of the only graph, in execution order."""
    codes = names(schema().BuiltinOperator)
    (graph,) = model.subgraphs
    return [codes[model.operatorCodes[item.opcodeIndex].builtinCode] for item in graph.operators]


def operators(data: bytes) -> list[Operator]:
    """The operators of the file's only graph, in execution order."""
    model = parse(data)
    types = names(schema().TensorType)
    activations = names(schema().ActivationFunctionType)
    (graph,) = model.subgraphs

    def dtypes(indices: Any) -> tuple[str, ...]:
        return tuple(types[graph.tensors[index].type] for index in indices if index >= 0)

    return [
        Operator(
            name=name,
            inputs=dtypes(item.inputs),
            outputs=dtypes(item.outputs),
            activation=activations[getattr(item.builtinOptions, "fusedActivationFunction", 0)],
        )
        for name, item in zip(operator_names(model), graph.operators, strict=True)
    ]


def layer_tensors(data: bytes, layers: Collection[str]) -> list[str]:
    """Names of the outputs of these layers: a convolution's weight lies in its layer's scope."""
    model = parse(data)
    tensors = model.subgraphs[0].tensors
    return [
        tensors[item.outputs[0]].name.decode()
        for name, item in zip(operator_names(model), model.subgraphs[0].operators, strict=True)
        if name in CONVOLUTIONS
        and tensors[item.inputs[1]].name.decode().rpartition("/")[0].rpartition(";")[2] in layers
    ]


def read_signature(data: bytes, outputs: Sequence[str] = OUTPUTS) -> Signature:
    """Which tensors the file's signature calls ``image`` and by the names of ``outputs``.

    Raises:
        ExportFailed: the file has no signature, or one with other keys.
    """
    model = parse(data)
    definitions = model.signatureDefs or []
    tensors = {
        entry.name.decode(): model.subgraphs[definition.subgraphIndex].tensors[entry.tensorIndex]
        for definition in definitions
        for entry in (*definition.inputs, *definition.outputs)
    }
    if len(definitions) != 1 or set(tensors) != {"image", *outputs}:
        raise ExportFailed(
            f"the converter wrote {len(definitions)} signatures with {sorted(tensors)}, expected"
            f" one with image, {', '.join(outputs)}: use the TensorFlow that pyproject.toml names"
        )
    return Signature(
        image=_tensor_spec(tensors["image"]),
        outputs=tuple(_tensor_spec(tensors[name]) for name in outputs),
    )


def _tensor_spec(tensor: Any) -> TensorSpec:
    found = tensor.quantization
    quantized = found is not None and found.scale is not None and len(found.scale) == 1
    return TensorSpec(
        name=tensor.name.decode(),
        dtype=names(schema().TensorType)[tensor.type].lower(),
        shape=tuple(int(size) for size in tensor.shape),
        layout=layout_of(tuple(tensor.shape)),
        scale=float(found.scale[0]) if quantized else None,
        zero_point=int(found.zeroPoint[0]) if quantized else None,
    )
