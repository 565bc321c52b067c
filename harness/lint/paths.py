"""Lint what a path names: a results folder, an artifact's folder or manifest, or a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness import artifacts, results
from harness.errors import BadInput, ResultsError
from harness.lint.compared import lint_runs
from harness.lint.single import lint_artifact, lint_record
from harness.records import Artifact, Finding, RunRecord, decode


@dataclass(frozen=True, kw_only=True)
class ReadRun:
    """One run as read from its folder: a `RunView`."""

    machine: Mapping[str, Any]
    records: tuple[RunRecord, ...]
    artifacts: Mapping[str, Artifact]


def lint_path(path: Path) -> tuple[Finding, ...]:
    """Findings about ``path``.

    Raises:
        BadInput: it is nothing that can be checked.
        ResultsError: a file in it is damaged.
        ArtifactDamaged: a manifest is damaged.
    """
    if path.is_dir():
        if (path / artifacts.MANIFEST).is_file():
            return lint_artifact(artifacts.read_manifest(path))
        return lint_runs([_read_run(folder) for folder in results.find_runs([path])])
    if not path.is_file():
        raise BadInput(f"{path} does not exist: give a results folder, an artifact or a record")
    content = path.read_bytes()
    keys = _keys(content, path)
    if "cell" in keys:
        return _lint_record_file(decode(content, RunRecord, path), path)
    if "exporter" in keys:
        return lint_artifact(decode(content, Artifact, path))
    raise BadInput(
        f"{path} is neither a record nor an artifact's manifest: give one of these,"
        " or a results folder"
    )


def _keys(content: bytes, path: Path) -> set[str]:
    try:
        plain = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path} is not valid JSON ({error}): restore it") from None
    return set(plain) if isinstance(plain, dict) else set()


def _lint_record_file(record: RunRecord, path: Path) -> tuple[Finding, ...]:
    """With the manifest and the machine that lie beside it in a run's folder, if they do."""
    artifact, machine = None, {}
    name = f"{(record.artifact_sha256 or '')[:16]}.json"
    manifest = path.parent.parent / "artifacts" / name
    if manifest.is_file():
        artifact = decode(manifest.read_bytes(), Artifact, manifest)
    facts = path.parent.parent.parent / "machine.json"
    if facts.is_file():
        machine = msgspec.json.decode(facts.read_bytes())
    return lint_record(record, artifact, machine)


def _read_run(folder: Path) -> ReadRun:
    machine, _, records, found = results.load_run(folder)
    return ReadRun(machine=machine, records=tuple(records), artifacts=found)
