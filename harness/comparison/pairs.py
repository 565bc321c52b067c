"""Rows of two sides that measure the same thing, and in what else the two sides are unlike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness.comparison.sides import Side
from harness.errors import BadInput
from harness.records import Cell, encode
from harness.report.data import RunData
from harness.report.evidence import revision
from harness.report.join import Row, join

NOT_A_DIFFERENCE = frozenset({"id", "calibration", "digest", "schema"})
"""Facts of machines that are compared by what follows from them, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """Something other than the rows that differs between the sides."""

    what: str
    a: str
    b: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row of each side. ``label`` says what both are; ``unlike`` what this pair differs in."""

    label: str
    a: Row
    b: Row
    unlike: tuple[Unlike, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Paired:
    """All rows of both sides. ``runs`` and ``folders`` are indexed by a row's ``run``."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unlike: tuple[Unlike, ...]
    runs: tuple[RunData, ...]
    folders: tuple[Path, ...] = field(default=())

    def floor(self, row: Row) -> float | None:
        """The noise floor of a row's run."""
        floor = self.runs[row.run].run.get("noise_floor")
        return float(floor) if isinstance(floor, int | float) else None

    def tier(self, row: Row) -> str:
        """How long the row's run timed."""
        return str(self.runs[row.run].run.get("tier") or "")


def pair(a: Side, b: Side) -> Paired:
    """Put rows side by side: on each machine that both have, else across the one of each.

    Raises:
        BadInput: nothing of one side was measured; different machines, several on a side.
    """
    runs = (*a.runs, *b.runs)
    rows = join(runs).rows
    sides = [
        [row for row in rows if (row.run < len(a.runs)) == first and _named(row, side)]
        for first, side in ((True, a), (False, b))
    ]
    for side, found in zip((a, b), sides, strict=True):
        if not found:
            raise BadInput(f"nothing of '{side.name}' was measured, so there is nothing to compare")
    across = _across(sides, runs)
    if a.cell_id and b.cell_id:
        pairs = [_pair(f"{a.cell_id} → {b.cell_id}", sides[0][0], sides[1][0])]
        only: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    else:
        tables = [_by_key(found, across=across, runs=runs) for found in sides]
        several = len({key[0] for table in tables for key in table}) > 1
        both = [key for key in tables[0] if key in tables[1]]
        pairs = [_pair(_label(tables[0][k], several), tables[0][k], tables[1][k]) for k in both]
        only = (
            tuple(_label(row, several) for key, row in tables[0].items() if key not in tables[1]),
            tuple(_label(row, several) for key, row in tables[1].items() if key not in tables[0]),
        )
    return Paired(
        a=a,
        b=b,
        pairs=tuple(pairs),
        only_a=only[0],
        only_b=only[1],
        unlike=tuple(_sides_unlike(a, b)),
        runs=runs,
        folders=(*a.folders, *b.folders),
    )


def _named(row: Row, side: Side) -> bool:
    entries = (row.accuracy_entry, row.latency_entry)
    return side.cell_id is None or any(e and e.cell_id == side.cell_id for e in entries)


def _across(sides: Sequence[Sequence[Row]], runs: Sequence[RunData]) -> bool:
    """Whether to pair rows of different machines."""
    first, second = ({runs[row.run].machine_id for row in rows} for rows in sides)
    if first & second:
        return False
    if len(first) == len(second) == 1:
        return True
    raise BadInput(
        f"A has the machines {', '.join(sorted(first))} and B has {', '.join(sorted(second))},"
        " none in common: name one machine's folder on each side"
    )


def _by_key(
    rows: Iterable[Row], *, across: bool, runs: Sequence[RunData]
) -> dict[tuple[str, bytes], Row]:
    """Rows by what they measure; of several, the one measured last."""
    found: dict[tuple[str, bytes], Row] = {}
    for row in sorted(rows, key=_started):
        machine = "" if across else runs[row.run].machine_id
        asked = msgspec.structs.replace(_cell(row), measure="latency", dataset="", weights="")
        found[(machine, encode(asked))] = row
    order = {row.key: number for number, row in enumerate(rows)}
    return dict(sorted(found.items(), key=lambda item: order[item[1].key]))


def _started(row: Row) -> str:
    return max(record.started_at for record in (row.latency, row.accuracy) if record)


def _cell(row: Row) -> Cell:
    entry = row.latency_entry or row.accuracy_entry
    if entry is None:
        raise ValueError("a row without entries")
    return entry.cell


def _label(row: Row, with_machine: bool) -> str:
    timed = row.latency_entry is not None
    threads = f", {row.threads} thread{'' if row.threads == 1 else 's'}" if timed else ""
    where = f" ({row.machine})" if with_machine else ""
    return f"{row.model} {row.pair}{threads}{where}"


def _pair(label: str, a: Row, b: Row) -> Pair:
    return Pair(label=label, a=a, b=b, unlike=tuple(_rows_unlike(a, b)))


def _rows_unlike(a: Row, b: Row) -> Iterable[Unlike]:
    one, other = _cell(a), _cell(b)
    facts: dict[str, tuple[Any, Any]] = {
        name: (value, getattr(other, name))
        for name, value in msgspec.structs.asdict(one).items()
        if name not in ("measure", "dataset")
    }
    facts["artifact"] = (_artifact(a), _artifact(b))
    facts["data set"] = (a.dataset, b.dataset)
    for what, (first, second) in facts.items():
        if first != second:
            yield Unlike(what=what.replace("_", " "), a=str(first), b=str(second))
    records = (a.latency or a.accuracy, b.latency or b.accuracy)
    versions = [record.versions if record else {} for record in records]
    yield from _differences(versions[0], versions[1])
    for name, row in (("A", a), ("B", b)):
        if row.mixed_artifacts:
            yield Unlike(
                what=f"artifacts within {name}",
                a=f"accuracy of {_short(row.accuracy)}",
                b=f"latency of {_short(row.latency)}",
            )


def _short(record: Any) -> str:
    return f"{record.artifact_sha256[:12]}" if record and record.artifact_sha256 else "no artifact"


def _artifact(row: Row) -> str:
    return _short(row.latency or row.accuracy)


def _sides_unlike(a: Side, b: Side) -> Iterable[Unlike]:
    yield from _differences(
        {"machine": _all(run.machine_id for run in a.runs)},
        {"machine": _all(run.machine_id for run in b.runs)},
    )
    if len({run.machine_id for run in (*a.runs, *b.runs)}) > 1 or len(a.runs) == len(b.runs) == 1:
        first, second = (
            {k: v for k, v in side.runs[0].machine.items() if k not in NOT_A_DIFFERENCE}
            for side in (a, b)
        )
        yield from _differences(first, second)
    facts = [
        {
            "git revision": _all(revision(run, short=True) for run in side.runs),
            **{
                name.replace("_", " "): _all(run.run.get(name) for run in side.runs)
                for name in ("tier", "rounds", "images")
            },
        }
        for side in (a, b)
    ]
    yield from _differences(facts[0], facts[1])


def _all(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values}))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterable[Unlike]:
    for what in sorted({*a, *b}):
        first, second = a.get(what), b.get(what)
        if first != second:
            yield Unlike(what=what.replace("_", " "), a=_said(first), b=_said(second))


def _said(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
