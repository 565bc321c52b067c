"""What a report is made from, and the files that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """

    machine: Mapping[str, Any]
    run: Mapping[str, Any]
    records: Sequence[RunRecord]
    artifacts: Mapping[str, Artifact]
    folder: Path | None = None

    @property
    def machine_id(self) -> str:
        """The machine that the run was made on."""
        recorded = sorted({record.machine_id for record in self.records})
        named = (self.machine.get("id"), self.run.get("machine_id"), *recorded)
        return next((str(name) for name in named if name), "unnamed machine")


@dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """The files of a report, all in one folder."""

    html: Path
    markdown: Path
    csv: Path
