"""Which kernels of a network can be cut in several ways, and in which.

Lowering asks for a cut each time that it emits such a kernel, and gets the usual one (None) or what
tuning chose. What was asked for is kept, so that it can be tuned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from exporters import _tvm_conv, _tvm_fused
from exporters._tvm_conv_tile import Conv
from exporters._tvm_fused import Fused

MOST_CUTS = 10
"""Register tiles of a kernel that tuning tries: the most promising by estimated cycles."""


class Tunable(NamedTuple):
    """A kernel.

    Attributes:
        name: for people.
        macs: of one call.
        cuts: all that can be tried; None, the usual one, is the first.
        write: makes the function of a cut, without threads, by its name.
    """

    name: str
    macs: int
    cuts: tuple[Any, ...]
    write: Callable[[Any, str], Any]


class Tunables:
    """Kernels of one network by what they compute.

    Attributes:
        found: those that were asked for.
        calls: how often each was.
    """

    def __init__(
        self, lanes: int, registers: int, chosen: Mapping[Hashable, Any] | None = None
    ) -> None:
        self._lanes, self._registers = lanes, registers
        self._chosen = chosen or {}
        self.found: dict[Hashable, Tunable] = {}
        self.calls: Counter[Hashable] = Counter()

    def conv(self, conv: Conv, place: str) -> Any:
        """The cut for `_tvm_conv.plan`; ``place`` says where it is, in words."""
        lanes, registers = self._lanes, self._registers

        def plan(cut: Any) -> Any:
            return _tvm_conv.plan(conv, lanes, registers, cut)

        def write(cut: Any, name: str) -> Any:
            return _tvm_conv.kernel(name, conv, plan(cut), threads=False)

        cuts = _apart(plan, _tvm_conv.tiles(conv, lanes, registers, MOST_CUTS))
        return self._offer(conv, Tunable(place, conv.macs, cuts, write))

    def fused(self, fused: Fused, place: str) -> Any:
        """The cut for `_tvm_fused.plan`."""
        lanes, registers = self._lanes, self._registers

        def plan(cut: Any) -> Any:
            return _tvm_fused.plan(fused, lanes, registers, cut)

        def write(cut: Any, name: str) -> Any:
            return _tvm_fused.kernel(name, fused, plan(cut), registers, threads=False)

        cuts = _apart(plan, _tvm_fused.cuts(fused, lanes, registers, MOST_CUTS))
        return self._offer(fused, Tunable(place, fused.macs, cuts, write))

    def _offer(self, key: Hashable, tunable: Tunable) -> Any:
        self.found[key] = tunable
        self.calls[key] += 1
        return self._chosen.get(key)


def _apart(plan: Callable[[Any], Hashable], cuts: Sequence[Any]) -> tuple[Any, ...]:
    """None and those of ``cuts`` that lead to another plan than the ones before."""
    found: dict[Hashable, Any] = {}
    for cut in (None, *cuts):
        found.setdefault(plan(cut), cut)
    return tuple(found.values())
