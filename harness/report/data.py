"""What a report is made from, and the files that it becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records import Artifact, RunRecord


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run on one machine, as read from its results folder.

    Attributes:
        machine: content of ``machine.json``: nested facts, shown as they are; ``id`` names it.
        run: content of ``run.json``: name, command, started_at, plan (cells in planned order,
            bare or as ``{"id", "cell"}``), tier, rounds, seed, images, git_revision, git_dirty,
            versions, noise_floor, left_out (sentences). Any may be absent.
        records: one per ended cell; of several for one cell the one started last counts.
        artifacts: manifests by artifact id.
        folder: where the run's files are, evidence included; None where they are not at hand.
        beside: the machine in whose folder the records lie, where ``machine`` is a board that ran
            the models for it.
    """

    machine: Mapping[str, Any]
    run: Mapping[str, Any]
    records: Sequence[RunRecord]
    artifacts: Mapping[str, Artifact]
    folder: Path | None = None
    beside: str | None = None

    @property
    def machine_id(self) -> str:
        """The machine that the run was made on."""
        recorded = sorted({record.machine_id for record in self.records})
        named = (self.machine.get("id"), self.run.get("machine_id"), *recorded)
        return next((str(name) for name in named if name), "unnamed machine")


def by_machine(run: RunData) -> list[RunData]:
    """The run, and apart from it what boards measured for it: theirs are no figures of its machine.

    A board's part holds nothing that was found out about the machine beside it.
    """
    boards: dict[str, list[RunRecord]] = {}
    own: list[RunRecord] = []
    for record in run.records:
        board = str(record.board["id"]) if record.board else run.machine_id
        (own if board == run.machine_id else boards.setdefault(board, [])).append(record)
    found = []
    for records in boards.values():
        plan = dict(run.run) | {"speeds": (), "noise_floor": None}
        plan["plan"] = _planned(run, {record.cell_id for record in records})
        part = dataclasses.replace(
            run, machine=records[0].board or {}, run=plan, records=records, beside=run.machine_id
        )
        found.append(part)
    if not found:
        return [run]
    elsewhere = {record.cell_id for records in boards.values() for record in records}
    left = _planned(run, elsewhere, inside=False)
    if not own and not left:
        return found
    rest = dict(run.run) | {"plan": left}
    return [dataclasses.replace(run, run=rest, records=own), *found]


def _planned(run: RunData, ids: Collection[str], *, inside: bool = True) -> list[Any]:
    """The planned cells whose id is one of ``ids``, or is not."""
    return [item for item in run.run.get("plan") or () if (item["id"] in ids) is inside]


@dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """The files of a report, all in one folder."""

    html: Path
    markdown: Path
    csv: Path
