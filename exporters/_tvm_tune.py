"""Tuning: candidates of kernels are timed, the most worthwhile kernel first, until a budget ends.

What was timed stays in `_tvm_time.Times`, by target and kernel: a search that is stopped, or given
more, goes on where it was, and ``cached`` uses what is there without timing anything.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporters import _tvm_fused
from exporters._tvm_time import Candidate, Times
from exporters._tvm_tunable import Tunables
from harness.cache import sha256_text
from harness.errors import BadConfig, ExportFailed
from harness.progress import clock
from harness.provenance import source_digest
from harness.records import LayerChoice
from harness.units import parse_seconds

OFF, CACHED, TRIALS = "no", "cached", "trials"
KERNELS = (
    "exporters/_tvm_conv.py",
    "exporters/_tvm_conv_tile.py",
    "exporters/_tvm_depthwise.py",
    "exporters/_tvm_fused.py",
    "exporters/_tvm_tiles.py",
    "exporters/_tvm_tir.py",
)
"""Code that a time depends on."""


@dataclass(frozen=True)
class Budget:
    """How long a search may last: ``seconds`` or ``trials``, whichever is given."""

    seconds: float = float("inf")
    trials: float = float("inf")


class Workload(NamedTuple):
    """A kernel with its candidates, the untuned one first. ``weight`` orders the search."""

    name: str
    weight: float
    candidates: tuple[Candidate, ...]


def parse(text: str) -> Budget | None:
    """``no`` is None; ``cached`` no time at all; else a duration, or ``500trials``.

    Raises:
        BadConfig: it is none of them.
    """
    if text == OFF:
        return None
    if text == CACHED:
        return Budget(trials=0)
    if text.endswith(TRIALS) and text.removesuffix(TRIALS).isdigit():
        return Budget(trials=int(text.removesuffix(TRIALS)))
    try:
        return Budget(seconds=parse_seconds(text, "the budget"))
    except BadConfig:
        raise BadConfig(
            f"tune={text} is no budget: give a duration such as 15min, 500trials,"
            f" {CACHED} to use what is known, or {OFF}"
        ) from None


def budget_for(text: str, times: Times) -> Budget | None:
    """`parse`, for a target that can be timed.

    Raises:
        ExportFailed: its code can run nowhere.
    """
    budget = parse(text)
    if budget is not None and not times.possible:
        raise ExportFailed(
            f"tune={text} times kernels, and this machine is no {times.target.text}:"
            " give board=HOST:PORT of one, tune on it, or leave tune out"
        )
    return budget


def search(workloads: Sequence[Workload], times: Times, budget: Budget) -> None:
    """Time candidates until all are known or the budget is spent; says on stderr how it goes."""
    started, trials = time.monotonic(), 0
    ordered = sorted(workloads, key=lambda workload: -workload.weight)
    left = sum(len(times.missing(workload.candidates)) for workload in ordered)
    for number, workload in enumerate(ordered, start=1):
        missing = times.missing(workload.candidates)
        spent = time.monotonic() - started
        if not missing:
            continue
        if spent >= budget.seconds or trials >= budget.trials:
            _say(f"tuning: the budget is spent, {left} candidates were not tried")
            return
        missing = missing[: int(min(len(missing), budget.trials - trials))]
        found = times.measure(missing)
        trials += len(missing)
        left -= len(missing)
        spent = time.monotonic() - started
        eta = min(spent / trials * left, max(budget.seconds - spent, 0))
        usual = times.known(workload.candidates[0])
        gain = f", {usual / min(found.values()):.2f}x" if usual else ""
        _say(
            f"tuning {number} of {len(ordered)}, {workload.name}: {len(missing)} tried{gain};"
            f" {clock(spent)} spent, about {clock(eta)} left"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def dense_workloads(tunables: Tunables, target: str) -> dict[Hashable, Workload]:
    """Of the kernels that lowering asked cuts for."""
    code = source_digest(KERNELS)

    def candidate(key: Hashable, cut: Any) -> Candidate:
        write = tunables.found[key].write
        digest = sha256_text([target, repr(key), repr(cut), code])
        return Candidate(digest, (key, cut), lambda name: write(cut, name))

    return {
        key: Workload(
            one.name,
            one.macs * tunables.calls[key],
            tuple(candidate(key, cut) for cut in one.cuts),
        )
        for key, one in tunables.found.items()
    }


def best_cuts(
    tunables: Tunables, workloads: Mapping[Hashable, Workload], times: Times
) -> dict[Hashable, tuple[Any, LayerChoice]]:
    """The fastest known cut of each kernel whose usual one was timed, and a line about it."""
    found: dict[Hashable, tuple[Any, LayerChoice]] = {}
    for key, workload in workloads.items():
        known = {
            cut: seconds
            for cut, candidate in zip(tunables.found[key].cuts, workload.candidates, strict=True)
            if (seconds := times.known(candidate)) is not None
        }
        if None not in known:
            continue
        cut = min(known, key=known.__getitem__)
        micro = round(known[cut] * 1e6, 1)
        found[key] = (
            cut,
            LayerChoice(
                layer=workload.name,
                sparsity=0.0,
                dense_us=micro,
                sparse_us=None,
                chosen="as untuned" if cut is None else _words(cut),
                reason=f"tuned, {len(known)} of {len(workload.candidates)} candidates tried",
                chosen_us=micro,
                untuned_us=round(known[None] * 1e6, 1),
                macs=tunables.found[key].macs,
            ),
        )
    return found


def _words(cut: Any) -> str:
    """A cut for people."""
    if isinstance(cut, _tvm_fused.Cut):
        pixels, vectors = cut.tile
        return f"{pixels} pixels x {vectors} vectors, strips of {cut.scratch_bytes // 1024} kB"
    return f"{cut[0]} pixels x {cut[1]} vectors"


def said(layers: Sequence[LayerChoice], of: int) -> str:
    """The tuning in a sentence, for the manifest."""
    if not layers:
        return "tuned: nothing is known of its kernels, so the usual cuts were taken"
    tuned = [layer for layer in layers if layer.untuned_us and layer.chosen_us]
    before = sum(layer.untuned_us or 0.0 for layer in tuned)
    after = sum(layer.chosen_us or 0.0 for layer in tuned)
    return (
        f"tuned: {len(tuned)} of {of} kernels, each counted once: {before / 1e3:.2f} ms untuned,"
        f" {after / 1e3:.2f} ms tuned"
    )
