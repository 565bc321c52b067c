"""Batch norms folded into the convolutions before them, in a captured graph.

In evaluation mode ``BN(Wx + b) = (gW)x + g(b - mean) + beta`` with ``g = gamma / sqrt(var + eps)``
per output channel (Jacob et al. 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from typing import Any

from harness.extras import require


def fold_batch_norms(module: Any) -> int:
    """Fold every batch norm that is the only reader of a convolution, in place.

    Weights are put in channels_last: each convolution then works in that layout and hands it on,
    the faster one on CPUs.

    Args:
        module: the ``GraphModule`` of a program captured in evaluation mode.

    Returns:
        The number of batch norms folded.
    """
    torch = require("torch", extra="torch")
    aten = torch.ops.aten
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    folded = 0
    for norm in list(module.graph.find_nodes(op="call_function", target=aten.batch_norm.default)):
        conv, gamma, beta, mean, variance, training, _momentum, eps, _cudnn = norm.args
        if conv.target is not aten.conv2d.default or len(conv.users) > 1 or training:
            continue
        weight, bias = conv.args[1], conv.args[2] if len(conv.args) > 2 else None
        values = torch.nn.utils.fusion.fuse_conv_bn_weights(
            *(_value(tensors, node) for node in (weight, bias, mean, variance)),
            eps,
            *(_value(tensors, node) for node in (gamma, beta)),
        )
        names = (f"folded_weight_{folded}", f"folded_bias_{folded}")
        with module.graph.inserting_before(conv):
            for name, value in zip(names, values, strict=True):
                module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
            conv.args = (conv.args[0], *map(module.graph.get_attr, names), *conv.args[3:])
        norm.replace_all_uses_with(conv)
        module.graph.erase_node(norm)
        folded += 1
    _to_channels_last(torch, module)
    prune(module)
    return folded


def prune(module: Any) -> None:
    """Remove nodes that nothing reads, and parameters and buffers that no node reads."""
    module.graph.eliminate_dead_code()
    used = {node.target for node in module.graph.find_nodes(op="get_attr")}
    for name in [*dict(module.named_parameters()), *dict(module.named_buffers())]:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(owner), leaf)
    module.recompile()


def _value(tensors: dict[str, Any], node: Any) -> Any:
    return None if node is None else tensors[node.target]


def _to_channels_last(torch: Any, module: Any) -> None:
    for conv in module.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default):
        owner, _, leaf = conv.args[1].target.rpartition(".")
        holder = module.get_submodule(owner)
        weight = getattr(holder, leaf).detach().to(memory_format=torch.channels_last)
        setattr(holder, leaf, torch.nn.Parameter(weight, requires_grad=False))
