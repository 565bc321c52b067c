"""The aten graph of a network, its batch norms folded into the convolutions.

`torch.export` gives a flat graph of aten calls; what TensorFlow Lite has no operator for, batch
normalisation, is rewritten here in terms of what it has. Everything stays in torch's layouts and
numpy arrays; `exporters._tf_ops` turns it into TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ExportFailed, first_line
from harness.extras import require


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A network as a list of aten calls.

    Attributes:
        graph: a `torch.fx.Graph` of placeholders, get_attr nodes, aten calls and one output.
        constants: weights by the name of the placeholder or get_attr node that stands for them.
        image: name of the placeholder that stands for the image.
    """

    graph: Any
    constants: dict[str, NDArray[Any]]
    image: str


def trace(network: Any, shape: tuple[int, int, int, int]) -> Traced:
    """Trace ``network`` on a float32 image of ``shape`` (NCHW) and fold its batch norms.

    Raises:
        ExportFailed: torch cannot trace it, it does not map one image to (logits, offsets), or it
            is in training mode.
    """
    torch = require("torch", extra="torch")
    if any(module.training for module in network.modules()):
        raise ExportFailed(
            "the network, or a part of it, is in training mode: call network.eval() before export"
        )
    try:
        with torch.no_grad():
            program = torch.export.export(network, (torch.zeros(shape),))
    except Exception as error:  # torch.export fails with errors of many kinds
        raise ExportFailed(
            f"torch.export cannot trace the network on a {shape} image ({first_line(error)}):"
            " make its forward free of branches that depend on values"
        ) from error
    traced = Traced(
        graph=program.graph, constants=_constants(torch, program), image=_image_name(program)
    )
    _lower_batch_norms(torch, traced)
    return traced


def op_name(node: Any) -> str:
    """``conv2d`` for a call of ``aten.conv2d.default``; empty for what is not an aten call."""
    if node.op != "call_function" or not str(node.target).startswith("aten."):
        return ""
    return str(node.target).split(".")[1]


def _constants(torch: Any, program: Any) -> dict[str, NDArray[Any]]:
    """Every weight of the program by the name of its placeholder."""
    user_input = torch.export.graph_signature.InputKind.USER_INPUT
    tensors = {**program.constants, **program.state_dict}
    return {
        entry.arg.name: tensors[entry.target].detach().numpy()
        for entry in program.graph_signature.input_specs
        if entry.kind != user_input
    }


def _image_name(program: Any) -> str:
    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    if len(inputs) != 1 or len(outputs) != 2:
        raise ExportFailed(
            f"the network maps {len(inputs)} inputs to {len(outputs)} outputs:"
            " expected one image to (logits, offsets)"
        )
    return str(inputs[0])


def _lower_batch_norms(torch: Any, traced: Traced) -> None:
    """Rewrite every batch norm in place, so that none is left.

    After a convolution it disappears into the weights. After conv + ReLU (EtinyNet) a positive
    scale moves before the ReLU, which is homogeneous, and only an addition stays; that saves a
    multiplication at run time and, in int8, one rounding. Elsewhere it is a multiplication and
    an addition.
    """
    for node in list(traced.graph.nodes):
        if op_name(node) != "batch_norm":
            continue
        scale, shift = _affine(node, traced.constants)
        source = node.args[0]
        relu = op_name(source).rstrip("_") == "relu" and len(source.users) == 1
        if _is_private_conv(source):
            _scale_conv(traced, source, scale, shift)
            replacement = source
        elif relu and _is_private_conv(source.args[0]) and bool((scale > 0).all()):
            _scale_conv(traced, source.args[0], scale, np.zeros_like(shift))
            replacement = _per_channel(torch, traced, node, "add", source, shift)
        else:
            scaled = _per_channel(torch, traced, node, "mul", source, scale)
            replacement = _per_channel(torch, traced, node, "add", scaled, shift)
        node.replace_all_uses_with(replacement)
        traced.graph.erase_node(node)


def _affine(
    node: Any, constants: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``scale`` and ``shift`` per channel, ``(c,)``, such that batch norm is x * scale + shift."""
    _, weight, bias, mean, variance, training, _, epsilon, *_ = node.args
    if training or mean is None or variance is None:  # track_running_stats=False
        raise ExportFailed(
            f"batch norm {node.name} uses the statistics of the batch:"
            " give it running statistics before export"
        )
    mean64, variance64 = (constants[item.name].astype(np.float64) for item in (mean, variance))
    scale = 1.0 / np.sqrt(variance64 + epsilon)
    if weight is not None:
        scale = scale * constants[weight.name]
    shift = -mean64 * scale
    if bias is not None:
        shift = shift + constants[bias.name]
    return scale, shift


def _is_private_conv(node: Any) -> bool:
    """Whether ``node`` is a convolution whose result nobody else reads."""
    return op_name(node) == "conv2d" and len(node.users) == 1


def _scale_conv(
    traced: Traced, conv: Any, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> None:
    """Make ``conv`` answer ``conv * scale + shift``, with weights of its own."""
    image, weight, *rest = conv.args
    bias = rest[0] if rest else None
    new_weight = traced.constants[weight.name] * scale[:, None, None, None]
    old_bias = traced.constants[bias.name] if bias is not None else 0.0
    new_bias = old_bias * scale + shift
    conv.args = (
        image,
        _constant(traced, conv, f"{conv.name}_weight", new_weight),
        _constant(traced, conv, f"{conv.name}_bias", new_bias),
        *rest[1:],
    )


def _per_channel(
    torch: Any, traced: Traced, before: Any, op: str, source: Any, values: NDArray[np.float64]
) -> Any:
    """A new call ``aten.<op>(source, values)`` with ``values`` along the channels."""
    constant = _constant(traced, before, f"{before.name}_{op}", values[:, None, None])
    with traced.graph.inserting_before(before):
        call = traced.graph.call_function(
            getattr(torch.ops.aten, op).Tensor, args=(source, constant)
        )
    call.meta = dict(before.meta)
    return call


def _constant(traced: Traced, before: Any, name: str, values: NDArray[np.float64]) -> Any:
    with traced.graph.inserting_before(before):
        node = traced.graph.create_node("get_attr", name, name=name)
    traced.constants[node.name] = values.astype(np.float32)
    return node
