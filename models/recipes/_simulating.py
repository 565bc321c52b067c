"""A network's graph with rounded weights and activations."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from harness.ranges import Observed, choose
from models.recipes._clip import ChannelClip
from models.recipes._graph import layers, reader, trace
from models.recipes._rounding import rounded
from models.recipes._scheme import Scheme

MOVING = (nn.Identity, nn.Dropout, nn.MaxPool2d, nn.Flatten)
"""Layers whose outputs are among their inputs: they are on the grid already."""
ARITHMETIC = {operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul}
FUSED = (
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    ChannelClip,
)
"""Layers that runtimes compute together with the convolution before them."""


class Rounded(nn.Module):
    """Rounds activations to ``scale * (integer - zero)``, integers from ``least`` to ``most``."""

    def __init__(self, low: float, high: float, scheme: Scheme) -> None:
        super().__init__()
        if scheme.symmetric:
            self.most = 2 ** (scheme.bits - 1) - 1
            self.least, self.zero, self.scale = -self.most, 0, high / self.most
        else:
            self.least, self.most = 0, 2**scheme.bits - 1
            self.scale = (high - low) / self.most
            self.zero = round(-low / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero, self.least, self.most
        )


class _Observer(fx.Interpreter):
    """Runs images through the graph and looks at what some nodes answer."""

    def __init__(self, traced: fx.GraphModule, nodes: list[fx.Node]) -> None:
        super().__init__(traced)
        self.seen = {node: Observed() for node in nodes}
        self._generator = np.random.default_rng(0)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.seen:
            self.seen[n].see(value.numpy(), self._generator)
        return value


def simulate(
    network: nn.Module,
    weights: Scheme,
    activations: Scheme,
    images: Iterable[NDArray[np.float32]],
) -> tuple[fx.GraphModule, int]:
    """Round the weights in place and put `Rounded` into the network's graph.

    Weights lie in channels_last, as in the exported graph: with other kernels the sums would differ
    in their last bits, and now and then round the other way.

    Returns:
        The graph, and at how many places activations are rounded.
    """
    traced = trace(network)
    observer = _Observer(traced, _places(traced))
    with torch.no_grad():
        for image in images:
            observer.run(torch.from_numpy(image))
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(rounded(layer, weights))
    steps = 2**activations.bits - (2 if activations.symmetric else 1)
    for number, (node, observed) in enumerate(observer.seen.items()):
        low, high = choose(
            [observed], activations.ranges, steps=steps, symmetric=activations.symmetric
        )
        name = f"rounded_{number}"
        traced.add_submodule(name, Rounded(low, high, activations))
        with traced.graph.inserting_after(node):
            inserted = traced.graph.call_module(name, (node,))
        node.replace_all_uses_with(inserted)
        inserted.args = (node,)
    traced.recompile()
    traced.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # lacks this one
    return traced.eval(), len(observer.seen)


def _places(traced: fx.GraphModule) -> list[fx.Node]:
    """Nodes whose outputs an integer runtime would hold as integers of their own."""
    found = layers(traced)
    return [node for node in traced.graph.nodes if _computes(traced, node, found)]


def _computes(traced: fx.GraphModule, node: fx.Node, found: dict[fx.Node, nn.Module]) -> bool:
    if node.op == "placeholder" or node.target in ARITHMETIC:
        return True
    if node.op != "call_module" or isinstance(traced.get_submodule(str(node.target)), MOVING):
        return False
    after = reader(node, found)
    return after is None or not isinstance(found.get(after), FUSED)
