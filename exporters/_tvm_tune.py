"""Tuning: candidates of kernels are timed, the most worthwhile kernel first, until a budget ends.

Of each kernel the cuts of our own are tried first, then what MetaSchedule draws, if it knows that
kernel. What was timed stays in the cache, by target and kernel: a search that is stopped, or given
more, goes on where it was, and ``cached`` uses what is there without timing anything.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from exporters import _tvm_fused
from exporters._tvm_metaschedule import AT_ONCE, Database, Scheduled, Schedules, able
from exporters._tvm_time import Candidate, Times, code_digest
from exporters._tvm_tunable import Tunables
from harness.cache import sha256_text
from harness.errors import BadConfig, ExportFailed
from harness.layer_records import LayerChoice
from harness.progress import clock
from harness.units import parse_seconds

SCHEDULED = "a schedule of MetaSchedule"
WORTHWHILE = 0.98
"""Of the usual kernel's time: what gains less is not told apart from it."""

SCHEDULES_WORTHWHILE = 0.95
"""Of all tuned kernels' time without MetaSchedule's schedules. What gains less is not taken: one of
them in a module takes our kernels' tiles out of registers (`_tvm_build.MERGING_PASSES`)."""

OFF, CACHED, TRIALS = "no", "cached", "trials"
KERNELS = ("_tvm_conv", "_tvm_fused")
"""What writes the kernels of `Tunables`; a time depends on their code."""


@dataclass(frozen=True)
class Budget:
    """How long a search may last: ``seconds`` or ``trials``, whichever is given."""

    seconds: float = float("inf")
    trials: float = float("inf")


class More(Protocol):
    """Further ways to compute a workload, which are found while they are tried."""

    def left(self) -> int:
        """How many shall still be tried."""

    def best(self) -> Candidate | None:
        """The fastest one that was tried."""

    def search(self, count: int, times: Times) -> None:
        """Try ``count`` more."""


class Workload(NamedTuple):
    """A kernel with its candidates, first the ``usual`` ones that are taken without tuning.

    ``weight`` orders the search.
    """

    name: str
    weight: float
    candidates: tuple[Candidate, ...]
    more: More | None = None
    usual: int = 1

    def left(self, times: Times) -> int:
        """Trials that were not made yet."""
        return len(times.missing(self.candidates)) + (self.more.left() if self.more else 0)

    def finalists(self, times: Times) -> list[Candidate]:
        """The fastest of the usual candidates, of all, and of ``more``.

        Empty where none of the usual ones was timed, or nothing else.
        """
        known = {
            one: seconds for one in self.candidates if (seconds := times.known(one)) is not None
        }
        usual = [one for one in self.candidates[: self.usual] if one in known]
        schedule = self.more.best() if self.more else None
        if not usual or (len(usual) == len(known) and schedule is None):
            return []
        found = [min(usual, key=known.__getitem__), min(known, key=known.__getitem__)]
        return list(dict.fromkeys([*found, *([schedule] if schedule else [])]))

    def decided(self, times: Times, *, measure: bool = False) -> Decision | None:
        """Which of the finalists won, timed in turns; None where they were not yet."""
        finalists = self.finalists(times)
        seconds = times.in_turns(finalists, measure=measure) if finalists else None
        return None if seconds is None else decide(finalists, seconds)


class Decision(NamedTuple):
    """The winner of a workload, its seconds and those of the usual candidate; all finalists."""

    winner: Candidate
    seconds: float
    usual: float
    finalists: list[Candidate]
    all_seconds: list[float]

    @property
    def scheduled(self) -> bool:
        """Whether MetaSchedule's won."""
        return isinstance(self.winner.kind, Scheduled)

    def own(self) -> Decision:
        """The same among our own kernels."""
        pairs = zip(self.finalists, self.all_seconds, strict=True)
        ours = [seconds for one, seconds in pairs if not isinstance(one.kind, Scheduled)]
        best = decide(self.finalists[: len(ours)], ours)  # a schedule is the last one
        return best._replace(finalists=self.finalists, all_seconds=self.all_seconds)


def decide(finalists: list[Candidate], seconds: list[float]) -> Decision:
    """The fastest, or the first one, the usual, where that is hardly slower."""
    best = min(range(len(seconds)), key=seconds.__getitem__)
    if seconds[best] > WORTHWHILE * seconds[0]:
        best = 0
    return Decision(finalists[best], seconds[best], seconds[0], finalists, seconds)


def parse(text: str) -> Budget | None:
    """``no`` is None; ``cached`` no time at all; else a duration, or ``500trials``.

    Raises:
        BadConfig: it is none of them.
    """
    if text == OFF:
        return None
    if text == CACHED:
        return Budget(trials=0)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise BadConfig(
            f"tune={text} has no unit: give a duration such as {text}min, or {text}{TRIALS}"
        )
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
    left = sum(workload.left(times) for workload in ordered)
    for number, workload in enumerate(ordered, start=1):
        if not workload.left(times) and (workload.decided(times) or not workload.finalists(times)):
            continue
        if _over(budget, started, trials):
            _say(f"tuning: the budget is spent, {left} candidates were not tried")
            return
        before = trials
        while workload.left(times) and not _over(budget, started, trials):
            trials += _try(workload, times, budget.trials - trials)
        left -= trials - before
        decided = workload.decided(times, measure=True)
        spent = time.monotonic() - started
        eta = min(spent / max(trials, 1) * left, max(budget.seconds - spent, 0))
        gain = f", {decided.usual / decided.seconds:.2f}x" if decided else ""
        _say(
            f"tuning {number} of {len(ordered)}, {workload.name}: {trials - before} tried{gain};"
            f" {clock(spent)} spent, about {clock(eta)} left"
        )


def _over(budget: Budget, started: float, trials: int) -> bool:
    return time.monotonic() - started >= budget.seconds or trials >= budget.trials


def _try(workload: Workload, times: Times, most: float) -> int:
    """Time the next candidates, ``most`` at most; how many these were."""
    if missing := times.missing(workload.candidates):
        missing = missing[: int(min(len(missing), most))]
        times.measure(missing)
        return len(missing)
    assert workload.more is not None  # nothing else is left
    count = int(min(workload.more.left(), AT_ONCE, most))
    workload.more.search(count, times)
    return count


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def dense_workloads(tunables: Tunables, times: Times) -> dict[Hashable, Workload]:
    """Of the kernels that lowering asked cuts for; MetaSchedule is asked for those that it can."""
    code, target = code_digest(*KERNELS), times.target
    database = Database(target, times.folder)

    def candidate(key: Hashable, cut: Any) -> Candidate:
        write = tunables.found[key].write
        digest = sha256_text([target.text, repr(key), repr(cut), code])
        return Candidate(digest, (key, cut), lambda name: write(cut, name))

    return {
        key: Workload(
            one.name,
            one.macs * tunables.calls[key],
            tuple(candidate(key, cut) for cut in one.cuts),
            Schedules(key, database) if able(key, target.lanes) else None,
        )
        for key, one in tunables.found.items()
    }


def best_cuts(
    tunables: Tunables, workloads: Mapping[Hashable, Workload], times: Times
) -> dict[Hashable, tuple[Any, LayerChoice]]:
    """The cut or schedule of each kernel that was tuned, and a line about it."""
    found: dict[Hashable, tuple[Any, LayerChoice]] = {}
    for key, decided in _decisions(tunables, workloads, times).items():
        workload = workloads[key]
        cut = _cut(decided.winner)
        rivals = ", ".join(
            f"{_words(_cut(one))} {_micro(seconds)} µs"
            for one, seconds in zip(decided.finalists, decided.all_seconds, strict=True)
        )
        every = len(workload.candidates)
        tried = every - len(times.missing(workload.candidates))
        found[key] = (
            cut,
            LayerChoice(
                layer=workload.name,
                sparsity=0.0,
                dense_us=_micro(decided.seconds),
                sparse_us=None,
                chosen=_words(cut),
                reason=f"tuned, {tried} of {every} cuts tried; in turns: {rivals}",
                chosen_us=_micro(decided.seconds),
                untuned_us=_micro(decided.usual),
                macs=tunables.found[key].macs,
            ),
        )
    return found


def _decisions(
    tunables: Tunables, workloads: Mapping[Hashable, Workload], times: Times
) -> dict[Hashable, Decision]:
    """Of the kernels that were tuned; with schedules only where they gain enough together."""
    known = {key: workload.decided(times) for key, workload in workloads.items()}
    found = {key: decided for key, decided in known.items() if decided is not None}
    ours = {key: decided.own() if decided.scheduled else decided for key, decided in found.items()}
    before = sum(tunables.calls[key] * decided.seconds for key, decided in ours.items())
    after = sum(tunables.calls[key] * decided.seconds for key, decided in found.items())
    return found if after <= SCHEDULES_WORTHWHILE * before else ours


def _cut(candidate: Candidate) -> Any:
    """The cut, or the `Scheduled`, that a candidate times."""
    kind = candidate.kind
    return kind if isinstance(kind, Scheduled) else kind[1]


def rounded(micro: float) -> float:
    """Microseconds with one decimal, small ones with three digits: none becomes zero."""
    return round(micro, 1) if micro >= 10 else float(f"{micro:.3g}")


def _micro(seconds: float) -> float:
    return rounded(seconds * 1e6)


def _words(cut: Any) -> str:
    """What was chosen, for people."""
    if cut is None:
        return "as untuned"
    if isinstance(cut, Scheduled):
        return SCHEDULED
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
    by_tvm = sum(layer.chosen == SCHEDULED for layer in tuned)
    return (
        f"tuned: {len(tuned)} of {of} kernels, each counted once: {before / 1e3:.2f} ms untuned,"
        f" {after / 1e3:.2f} ms tuned"
        + (f"; a schedule of MetaSchedule is the fastest of {by_tvm}" if by_tvm else "")
    )
