"""The graph of a network's layers, as torch.fx traces it, and walks along it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from models.recipes._clip import ChannelClip

Visit = Callable[[str, nn.Conv2d, Tensor], Tensor]
"""Given a convolution's name, the convolution and its input, answers its output."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, nn.Conv2d | ChannelClip)
        return whole or bool(super().is_leaf_module(m, module_qualified_name))


def trace(network: nn.Module) -> fx.GraphModule:
    """The network as a graph; it shares the network's layers.

    Raises:
        Exception: of many kinds, where its forward depends on values.
    """
    return fx.GraphModule(network, _Tracer().trace(network))


def untraceable(network: nn.Module) -> str | None:
    """Why a network cannot be traced, or None."""
    try:
        trace(network)
    except Exception as error:  # torch.fx fails with errors of many kinds
        first = str(error).partition("\n")[0]
        return f"torch.fx cannot trace it ({first}): make its forward free of branches on values"
    return None


def layers(traced: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    """The layers that are called once, by their node, in the order in which they run."""
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    times = Counter(str(node.target) for node in calls)
    return {
        node: traced.get_submodule(str(node.target)) for node in calls if times[node.target] == 1
    }


def reader(node: fx.Node, found: dict[fx.Node, nn.Module]) -> fx.Node | None:
    """The only node that reads ``node``, past layers that change nothing; None if there are more.

    Args:
        found: `layers` of the graph.
    """
    while len(node.users) == 1:
        (node,) = node.users
        if not isinstance(found.get(node), nn.Identity):
            return node
    return None


class Walk(fx.Interpreter):
    """Runs a batch through the graph layer by layer; convolutions are left to ``visit``."""

    def __init__(self, traced: fx.GraphModule, visit: Visit) -> None:
        super().__init__(traced)
        self._visit = visit

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        layer = self.fetch_attr(target)
        if isinstance(layer, nn.Conv2d):
            return self._visit(str(target), layer, args[0])
        return super().call_module(target, args, kwargs)


def walk_beside(traced: fx.GraphModule, batch: Tensor, visit: Visit) -> None:
    """Run ``batch`` twice side by side: first half the network as it is, second half as it becomes.

    ``visit`` is given both inputs of a convolution in one tensor, and answers both outputs.
    """
    with torch.no_grad():
        Walk(traced, visit).run(torch.cat([batch, batch]))


def batch_of(images: Callable[[], Iterator[NDArray[np.float32]]] | None, most: int) -> Tensor:
    """The first images of a pass as one batch, (n, 3, h, w)."""
    assert images is not None  # the recipe says that it needs them
    taken = [image for image, _ in zip(images(), range(most), strict=False)]
    return torch.from_numpy(np.concatenate(taken))
