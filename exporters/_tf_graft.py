"""Two TensorFlow Lite files made one: the outputs of the first become the inputs of the second.

Works on the schema's objects (`exporters._tf_file`), by moving the second file's operators, tensors
and buffers behind the first's and renumbering them.
"""

from __future__ import annotations

from typing import Any

from exporters._tf_file import parse, serialize


def graft(heads: bytes, tail: bytes) -> bytes:
    """One file with the inputs of ``heads`` and the outputs of ``tail``.

    Tensors are joined by the names in the two signatures: each input of the tail's must be an
    output of the heads', of the same shape and data type.
    """
    first, second = parse(heads), parse(tail)
    (body,), (end,) = first.subgraphs, second.subgraphs
    (signature,), (ending,) = first.signatureDefs, second.signatureDefs
    given = {entry.name: entry.tensorIndex for entry in signature.outputs}
    place = {entry.tensorIndex: given[entry.name] for entry in ending.inputs}
    buffers, codes = len(first.buffers), len(first.operatorCodes)
    for index, tensor in enumerate(end.tensors):
        if index not in place:
            place[index] = len(body.tensors)
            tensor.buffer += buffers
            body.tensors.append(tensor)
    for operator in end.operators:
        operator.opcodeIndex += codes
        operator.inputs = _moved(operator.inputs, place)
        operator.outputs = _moved(operator.outputs, place)
        body.operators.append(operator)
    first.buffers += second.buffers
    first.operatorCodes += second.operatorCodes
    body.outputs = _moved(end.outputs, place)
    for entry in ending.outputs:
        entry.tensorIndex = place[entry.tensorIndex]
    signature.outputs = ending.outputs
    return serialize(first)


def _moved(indices: Any, place: dict[int, int]) -> list[int]:
    """-1 stands for an input that is left out."""
    return [place.get(int(index), -1) for index in indices]
