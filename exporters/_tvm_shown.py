"""Which kernel of a module leaves which layer's result where, for `Runner.trace`.

A layer is a convolution with its batch-norm and its activation. A kernel that goes on after that
shows it only where what follows is one addition, which can be taken back; a kernel of several
layers shows its last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from exporters._tvm_after import Add, Clip
from exporters._tvm_graph import Step, shape_of
from harness.layer_records import LayerOutput


class Lowered(NamedTuple):
    """A module that calls kernels, what was done in words, and where layers' results lie."""

    module: Any
    notes: tuple[str, ...]
    outputs: tuple[LayerOutput, ...]


class Layout(NamedTuple):
    """Of a kernel's result, as in `LayerOutput`."""

    row: int
    plane: int
    lanes: int = 1
    offset: int = 0


class Shown:
    """Collects them while a module is written."""

    def __init__(self) -> None:
        self.outputs: list[LayerOutput] = []
        self._calls: Counter[str] = Counter()

    def call(
        self, step: Step, kernel: str, arguments: Sequence[Any], added: Any, layout: Layout
    ) -> None:
        """Note a call of ``kernel`` for ``step``, which adds ``added`` if it adds at all."""
        call = self._calls[kernel]
        self._calls[kernel] += 1
        afters = [after for after, _ in step.after]
        adds = [place for place, one in enumerate(arguments) if one is added]
        plain = not afters or (len(afters) == 1 and isinstance(afters[0], Clip))
        sums = len(afters) == 1 and isinstance(afters[0], Add) and bool(adds)
        if not step.layer or not (plain or sums):
            return
        _, channels, height, width = shape_of(step.out)
        self.outputs.append(
            LayerOutput(
                layer=step.layer,
                kernel=kernel,
                call=call,
                channels=channels,
                height=height,
                width=width,
                row=layout.row,
                plane=layout.plane,
                lanes=layout.lanes,
                offset=layout.offset,
                added=adds[0] if sums else None,
            )
        )
