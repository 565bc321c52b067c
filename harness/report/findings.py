"""What the linter says about the runs of a report, rule by rule: the first thing to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.lint import RULES, lint_runs
from harness.records import Finding, FindingLevel
from harness.report.data import RunData
from harness.report.figures import count, listing
from harness.report.join import Row
from harness.report.wording import MENTIONED

SOUND = f"The linter found no fault of the method ({len(RULES)} rules)."


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One breach in words. ``more`` are the places beyond those that are mentioned."""

    text: str
    where: tuple[str, ...]
    more: tuple[str, ...]

    @property
    def places(self) -> str:
        """The first places; how many there are beside them."""
        others = (count(len(self.more), "other"),) if self.more else ()
        return "; ".join((*self.where, *others))


@dataclass(frozen=True, kw_only=True)
class Breach:
    """All breaches of one rule, and the remedy."""

    rule: str
    level: FindingLevel
    faults: tuple[Fault, ...]
    remedy: str


def breaches(runs: Sequence[RunData], recommended: Iterable[Row]) -> tuple[Breach, ...]:
    """Findings about ``runs``, red rules first; ``recommended`` are the rows to ship."""
    chosen = [row.latency for row in recommended if row.latency]
    together: dict[str, list[Finding]] = {}
    for one in lint_runs(runs, chosen):
        together.setdefault(one.rule, []).append(one)
    return tuple(
        Breach(
            rule=rule,
            level=found[0].level,
            faults=tuple(_fault(one) for one in found),
            remedy=found[0].remedy,
        )
        for rule, found in together.items()
    )


def _fault(one: Finding) -> Fault:
    shown = len(one.where) if len(one.where) <= MENTIONED + 1 else MENTIONED
    return Fault(text=one.text, where=one.where[:shown], more=one.where[shown:])


def said(found: Sequence[Breach]) -> str:
    """How many rules of each level are broken, and what that means; `SOUND` where none is."""
    red = sum(one.level == "red" for one in found)
    amber = len(found) - red
    parts = [f"{count(red, 'red rule')} (a figure is wrong or a comparison false)"] if red else []
    if amber:
        parts.append(f"{count(amber, 'amber rule')} (a figure says less than it seems to)")
    return f"Broken: {listing(parts)}." if parts else SOUND
