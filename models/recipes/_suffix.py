"""Run a network again from one layer on, for many images, without what comes before it.

A layer's weights change nothing before the layer. So the values that are alive where it begins are
computed once for all images, and each change of its weights costs the rest of the network only.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from models.recipes._graph import trace

Values = dict[fx.Node, Any]
T = TypeVar("T")


class Suffix:
    """A network over batches of images that stands at a layer, and moves on to later ones."""

    def __init__(self, network: nn.Module, batches: Sequence[Tensor], *, workers: int) -> None:
        """Stand before the first layer.

        Args:
            network: in eval mode; its layers are shared, not copied.
            workers: batches that are run at once, one thread each.
        """
        self._traced = trace(network)
        self._nodes = list(self._traced.graph.nodes)
        self._dead = _last_uses(self._nodes)
        self._workers = workers
        first = next(node for node in self._nodes if node.op == "placeholder")
        self._place = self._nodes.index(first) + 1
        self._alive: list[Values] = [{first: batch} for batch in batches]

    def layers(self, names: Sequence[str]) -> list[str]:
        """``names`` in the order in which they run; those that run more than once are left out."""
        calls = [str(node.target) for node in self._nodes if node.op == "call_module"]
        return [name for name in calls if name in names and calls.count(name) == 1]

    def move_to(self, layer: str) -> None:
        """Stand before ``layer``, which must not lie behind."""
        place = self._place_of(layer)
        assert place >= self._place, f"{layer} lies behind"

        def move(number: int) -> None:
            self._run(self._alive[number], self._place, place)

        self._each(move)
        self._place = place

    def run(self, then: Callable[[int, tuple[Tensor, Tensor]], T]) -> list[T]:
        """Run all batches to the end; ``then`` is given a batch's number and its outputs."""

        def finish(number: int) -> T:
            outputs = self._run(dict(self._alive[number]), self._place, len(self._nodes))
            return then(number, outputs)

        return self._each(finish)

    def seconds_after(self) -> dict[str, float]:
        """What one batch takes from each layer to the end, measured once, on the first batch."""
        took = [0.0] * len(self._nodes)
        values = dict(self._alive[0])
        for place in range(self._place, len(self._nodes)):
            began = time.perf_counter()
            self._run(values, place, place + 1)
            took[place] = time.perf_counter() - began
        return {
            str(node.target): sum(took[place:])
            for place, node in enumerate(self._nodes)
            if node.op == "call_module"
        }

    def _place_of(self, layer: str) -> int:
        return next(i for i, node in enumerate(self._nodes) if str(node.target) == layer)

    def _each(self, work: Callable[[int], T]) -> list[T]:
        one_each = functools.partial(torch.set_num_threads, 1)
        with ThreadPoolExecutor(self._workers, initializer=one_each) as pool:
            return list(pool.map(work, range(len(self._alive))))

    def _run(self, values: Values, start: int, end: int) -> Any:
        """Run nodes ``start`` to ``end``; answers the last one's value.

        Adds to ``values`` and drops what is used up.
        """
        interpreter = fx.Interpreter(self._traced)
        interpreter.env = values
        found: Any = None
        with torch.inference_mode():
            for place in range(start, end):
                node = self._nodes[place]
                found = values[node] = interpreter.run_node(node)
                for dead in self._dead[place]:
                    values.pop(dead, None)
        return found


def _last_uses(nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """The nodes whose values nobody needs after each node."""
    last: dict[fx.Node, int] = {}
    for place, node in enumerate(nodes):
        for used in (node, *node.all_input_nodes):
            last[used] = place
    dead: list[list[fx.Node]] = [[] for _ in nodes]
    for node, place in last.items():
        dead[place].append(node)
    return dead
