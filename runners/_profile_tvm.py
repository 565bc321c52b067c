"""Time by kernel in TVM's virtual machine, which calls back before and after each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from harness.interfaces import Operator

BOOKKEEPING = ("vm.builtin", "R.", "relax.")
"""Functions of the machine itself: allocation, shapes, lists of results."""


def profile(
    machine: Any, run: Callable[[Any], object], images: Sequence[Any], clock: Callable[[], int]
) -> list[Operator]:
    """Run ``run`` over ``images`` under watch, after one call to warm up."""
    calls: list[tuple[str, int]] = []
    started = 0

    def watch(function: Any, name: str, before: bool, *_: Any) -> None:
        nonlocal started
        if before:
            started = clock()
        else:
            calls.append((name, clock() - started))

    machine.set_instrument(watch)
    runs = []
    for image in (images[0], *images):
        calls.clear()
        run(image)
        runs.append(list(calls))
    return operators(runs[1:])


def operators(runs: Sequence[Sequence[tuple[str, int]]]) -> list[Operator]:
    """Kernels by their place in the call; the machine's own functions are one entry."""
    found = []
    own = [0] * len(runs)
    for place, (name, _) in enumerate(runs[0]):
        times = [run[place][1] for run in runs]
        if name.startswith(BOOKKEEPING):
            own = [sum(pair) for pair in zip(own, times, strict=True)]
        else:
            kind = re.sub(r"_?\d+$", "", name)
            found.append(Operator(f"{place} {name}", kind, tuple(map(float, times))))
    if any(own):
        found.append(Operator("the machine's own functions", "vm.builtin", tuple(map(float, own))))
    return found
