"""Results on disk: ``results/<machine>/<run>/``, one JSON file a cell, each written atomically.

::

    results/<machine>/machine.json      what the machine is
    results/<machine>/<run>/run.json    what was planned, with which command
                           /cells/      one RunRecord each
                           /artifacts/  the manifests of what was measured
                           /rounds/     finished rounds of cells that are timed in several
                           /detections/ what each accuracy cell found, image by image
                           /logs/       what each child printed

A run's name gathers records: a later plan under the same name adds its cells, and replaces those
that ask for the same thing but whose inputs (code, weights, versions) have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.cache import sha256_file, write_atomic
from harness.errors import ResultsError
from harness.machine_speed import Speed
from harness.records import SCHEMA, Artifact, Cell, Record, RunRecord, decode, encode
from harness.registry import ROOT
from harness.seal import digest_of, seal, written_digest
from harness.tasks import ChildResult

DEFAULT = ROOT / "results"
R = TypeVar("R", bound=Record)


class PlannedId(Record, frozen=True, kw_only=True):
    """A planned cell and the name of its record, which changes when anything it depends on does."""

    id: str
    cell: Cell


class Run(Record, frozen=True, kw_only=True):
    """What was planned under one name; ``speeds`` are the machine's, measured beside it."""

    name: str
    command: tuple[str, ...]
    started_at: str
    git_revision: str
    git_dirty: bool
    tier: str
    rounds: int
    seed: int
    images: int
    plan: tuple[PlannedId, ...]
    noise_floor: float | None = None
    left_out: tuple[str, ...] = ()
    speeds: tuple[Speed, ...] = ()
    digest: str | None = None
    schema: int = SCHEMA


class RunFolder:
    """Reads and writes one run's files."""

    def __init__(self, results: Path, machine_id: str, name: str) -> None:
        self.machine_folder = results / machine_id
        self.path = self.machine_folder / name

    def cell_path(self, cell_id: str) -> Path:
        return self.path / "cells" / f"{cell_id}.json"

    def detections_path(self, cell_id: str) -> Path:
        return self.path / "detections" / f"{cell_id}.npz"

    def evidence(self, cell_id: str) -> dict[str, str]:
        """SHA-256 of the cell's detections, by path below the run's folder; empty without any."""
        path = self.detections_path(cell_id)
        if not path.is_file():
            return {}
        return {path.relative_to(self.path).as_posix(): sha256_file(path)}

    def log_path(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def newest_log(self, cell_id: str) -> Path | None:
        """The log of the cell's last child."""
        logs = sorted(
            (self.path / "logs").glob(f"{cell_id}*.log"), key=lambda path: path.stat().st_mtime_ns
        )
        return logs[-1] if logs else None

    def write_round(self, name: str, result: ChildResult) -> None:
        write_atomic(self.path / "rounds" / f"{name}.json", encode(result))

    def read_round(self, name: str) -> ChildResult | None:
        """What a finished round said; None where there is none or it is damaged."""
        return _read_or_none(self.path / "rounds" / f"{name}.json", ChildResult)

    def write_machine(self, machine: Record) -> None:
        write_atomic(self.machine_folder / "machine.json", encode(machine))

    def write_run(self, run: Run) -> None:
        write_atomic(self.path / "run.json", seal(encode(run)))

    def write_record(self, record: RunRecord) -> None:
        write_atomic(self.cell_path(record.cell_id), seal(encode(record)))

    def write_artifact(self, artifact: Artifact) -> None:
        write_atomic(self.artifact_path(artifact.sha256), encode(artifact))

    def read_artifact(self, sha256: str | None) -> Artifact | None:
        """The manifest of a measured artifact; None where there is none.

        Raises:
            ResultsError: it is damaged.
        """
        path = self.artifact_path(sha256 or "none")
        return decode(path.read_bytes(), Artifact, path) if path.is_file() else None

    def artifact_path(self, sha256: str) -> Path:
        """Where the manifest of an artifact is kept."""
        return self.path / "artifacts" / f"{sha256[:16]}.json"

    def read_run(self) -> Run | None:
        """The run's plan, or None where nothing was planned yet. Raises ResultsError."""
        path = self.path / "run.json"
        return read_sealed(path, Run) if path.is_file() else None

    def read_record(self, cell_id: str) -> RunRecord | None:
        """The record of a cell; None where it is missing or damaged (it is measured again)."""
        return _read_or_none(self.cell_path(cell_id), RunRecord)


def merge_plans(old: Sequence[PlannedId], new: Sequence[PlannedId]) -> tuple[PlannedId, ...]:
    """``old`` cells that ``new`` does not ask for again, then ``new``."""
    asked = {msgspec.json.encode(planned.cell) for planned in new}
    kept = [planned for planned in old if msgspec.json.encode(planned.cell) not in asked]
    return (*kept, *new)


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders at or below ``paths``, sorted.

    Raises:
        ResultsError: a path does not exist or holds no run.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise ResultsError(f"results folder {path} does not exist: run detbench run first")
        here = [item.parent for item in sorted(path.glob("**/run.json"))]
        if not here:
            raise ResultsError(f"{path} holds no run.json: run detbench run first")
        found += here
    return sorted(set(found))


def load_run(
    path: Path, *, every: bool = False
) -> tuple[dict[str, Any], Run, list[RunRecord], dict[str, Artifact]]:
    """Machine, plan, records, and artifacts by id, of one run folder.

    Args:
        every: also records of cells that are planned no more, such as those of earlier revisions.

    Raises:
        ResultsError: a file is damaged or was edited; the sentence names it.
    """
    machine = read_machine(path.parent / "machine.json")
    run = read_sealed(path / "run.json", Run)
    planned = [path / "cells" / f"{planned.id}.json" for planned in run.plan]
    files = sorted(path.glob("cells/*.json")) if every else filter(Path.is_file, planned)
    records = [read_sealed(item, RunRecord) for item in files]
    artifacts = (
        decode(_read(item), Artifact, item) for item in sorted(path.glob("artifacts/*.json"))
    )
    return machine, run, records, {artifact.id: artifact for artifact in artifacts}


def read_sealed(path: Path, kind: type[R]) -> R:
    """A `Run` or `RunRecord` that is as it was written; one without a digest is believed.

    Raises:
        ResultsError: unreadable, damaged, of a newer schema, or edited since it was written.
    """
    data = _read(path)
    record = decode(data, kind, path)
    said, found = written_digest(data), digest_of(data)
    if said is not None and said != found:
        raise ResultsError(
            f"{path} was edited after it was written: it says digest {said[:12]}…, its content has"
            f" {found[:12]}…: restore the file or delete it and measure again"
        )
    return record


def read_machine(path: Path) -> dict[str, Any]:
    """Facts of ``machine.json``, whatever fields they have; empty where there is no file.

    Raises:
        ResultsError: it is not JSON, or not an object.
    """
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(_read(path), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path} is not a machine's record ({error}): restore it") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be read ({error.strerror}): check its permissions"
        ) from None


def _read_or_none(path: Path, kind: type[R]) -> R | None:
    if not path.is_file():
        return None
    try:
        return read_sealed(path, kind)
    except ResultsError:
        return None
