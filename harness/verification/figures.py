"""Every figure of a run's records, computed again from raw samples, detections and hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness import stats
from harness.artifacts import model_digest
from harness.cache import sha256_file
from harness.comparison import rescoring
from harness.detections import Found
from harness.errors import ResultsError
from harness.records import Artifact, Measurement, RunRecord, decode
from harness.report import scores
from harness.results import Run, read_sealed

TOLERANCE = 1e-9
"""Other builds of numpy sum in another order; a figure that a person could tell is far larger."""
ONCE_A_ROUND = ("latency.load", "latency.first", "memory.", "threads.")
"""Metrics with one value a round, whose own value is that of the first round."""


class Problem(NamedTuple):
    """A figure or file that is not what the evidence says. ``where`` names it."""

    where: str
    what: str


class Checked(NamedTuple):
    """What was looked at: how many figures were computed again, what differs, what could not be."""

    figures: int
    problems: list[Problem]
    unchecked: list[str]


def check_run(folder: Path) -> Checked:
    """Check a run's plan, records, manifests and evidence."""
    problems: list[Problem] = []
    unchecked: list[str] = []
    figures = 0
    plan = _read(folder / "run.json", Run, problems)
    records = []
    for path in sorted(folder.glob("cells/*.json")):
        record = _read(path, RunRecord, problems)
        if record is not None:
            records.append(record)
            if record.digest is None:
                unchecked.append(f"{path}: written before records had a digest")
    if plan is not None:
        have = {record.cell_id for record in records}
        lost = [planned.id for planned in plan.plan if planned.id not in have]
        unchecked += [f"{folder}: planned cell {name} has no record" for name in lost]
    manifests = dict(_manifests(folder, problems))
    problems += _mixed(folder, records)
    for record in records:
        where = str(folder / "cells" / f"{record.cell_id}.json")
        problems += _evidence(folder, record, where)
        problems += _artifact(record, manifests, where)
        found = [*_timed(record, where), *_scored(folder, record, records, manifests, where)]
        figures += sum(1 for item in found if item is None)
        problems += [item for item in found if isinstance(item, Problem)]
        unchecked += [f"{where}: {item}" for item in found if isinstance(item, str)]
    return Checked(figures, problems, unchecked)


def _read(path: Path, kind: type[Any], problems: list[Problem]) -> Any:
    try:
        return read_sealed(path, kind)
    except ResultsError as error:
        problems.append(Problem(str(path), str(error)))
        return None


def _manifests(folder: Path, problems: list[Problem]) -> Iterator[tuple[str, Artifact]]:
    for path in sorted(folder.glob("artifacts/*.json")):
        try:
            artifact = decode(path.read_bytes(), Artifact, path)
        except (OSError, ResultsError) as error:
            problems.append(Problem(str(path), str(error)))
            continue
        if model_digest(artifact.files) != artifact.sha256:
            problems.append(Problem(str(path), "was edited: its SHA-256 does not follow"))
        yield artifact.sha256, artifact


def _mixed(folder: Path, records: Sequence[RunRecord]) -> Iterator[Problem]:
    """Records that ask for the same export and runner and were measured on different bytes."""
    seen: dict[bytes, RunRecord] = {}
    for record in sorted(records, key=lambda r: r.started_at, reverse=True):
        cell = msgspec.structs.replace(record.cell, measure="parity", threads=1, dataset="")
        same = seen.setdefault(msgspec.json.encode(cell), record)
        one, other = same.artifact_sha256, record.artifact_sha256
        if one and other and one != other and same.git_revision == record.git_revision:
            what = (
                f"{same.cell_id} was measured on artifact {one[:12]}…, {record.cell_id} on"
                f" {other[:12]}… under the same name"
            )
            yield Problem(str(folder), what)


def _evidence(folder: Path, record: RunRecord, where: str) -> Iterator[Problem]:
    for name, sha256 in record.evidence.items():
        path = folder / name
        if path.is_file() and sha256_file(path) != sha256:
            what = f"{name} has SHA-256 {sha256_file(path)[:12]}…, the record says {sha256[:12]}…"
            yield Problem(where, what)


def _artifact(record: RunRecord, manifests: dict[str, Artifact], where: str) -> Iterator[Problem]:
    artifact = manifests.get(record.artifact_sha256 or "")
    if artifact is not None and artifact.size_bytes != record.artifact_size_bytes:
        what = f"size is {record.artifact_size_bytes}, the manifest has {artifact.size_bytes}"
        yield Problem(where, what)


def _timed(record: RunRecord, where: str) -> Iterator[Problem | str | None]:
    """None for each figure that follows from its samples, else the problem or why it is open."""
    for item in record.measurements:
        if not item.samples:
            continue
        rounds = item.conditions.get("rounds")
        if rounds and sum(rounds) != len(item.samples):
            what = f"{item.metric} has {len(item.samples)} samples, its rounds {sum(rounds)}"
            yield Problem(where, what)
        if item.conditions.get("statistic") == "p50":
            yield _differs(item.metric, item.value, stats.percentile(item.samples, 50), where)
        elif item.value is None:
            continue  # samples alone, no figure
        elif rounds or item.metric.startswith(ONCE_A_ROUND):
            # what has no statistic keeps the value of its first round, see `harness.rounds.merge`
            yield _differs(item.metric, item.value, item.samples[0], where)
        else:
            yield f"{item.metric} does not say how it follows from its samples"


def _scored(
    folder: Path,
    record: RunRecord,
    records: Sequence[RunRecord],
    manifests: dict[str, Artifact],
    where: str,
) -> Iterator[Problem | str | None]:
    """The same for scores; a sentence where the evidence is not kept."""
    mine = [m for m in record.measurements if m.metric in scores.METRICS]
    artifact = manifests.get(record.artifact_sha256 or "")
    if not mine:
        return
    found = rescoring.find(folder, record)
    if isinstance(found, str) or artifact is None:
        yield f"scores not computed again: {found if isinstance(found, str) else 'no manifest'}"
        return
    yield from _same(mine, rescoring.scores(found, artifact.labels), where)
    changes = [m for m in record.measurements if m.metric.removesuffix("_change") in scores.METRICS]
    changes = [m for m in changes if m.metric.endswith("_change")]
    if changes:
        parents = _parents(folder, record, records, manifests)
        yield from _changes(changes, found, parents, artifact.labels, where)


def _parents(
    folder: Path,
    record: RunRecord,
    records: Sequence[RunRecord],
    manifests: dict[str, Artifact],
) -> list[Found]:
    """Detections of float exports that the record may have been compared with."""
    found = []
    for other in records:
        artifact = manifests.get(other.artifact_sha256 or "")
        alike = other.cell.measure == "accuracy" and other.cell.dataset == record.cell.dataset
        if alike and artifact and artifact.precision == "float32" and other is not record:
            evidence = rescoring.find(folder, other)
            found += [] if isinstance(evidence, str) else [evidence]
    return found


def _changes(
    said: Sequence[Measurement],
    found: Found,
    parents: Sequence[Found],
    labels: Sequence[str],
    where: str,
) -> Iterable[Problem | str | None]:
    """The change must follow from one of the parents."""
    answers: list[list[Problem | None]] = []
    for parent in parents:
        if parent.names == found.names:
            answers.append(list(_same(said, rescoring.changes(parent, found, labels), where)))
            if not any(answers[-1]):
                return answers[-1]
    if not answers:
        return ["changes not computed again: the float parent's detections are not kept"]
    return min(answers, key=lambda answer: sum(item is not None for item in answer))


def _same(
    said: Sequence[Measurement], again: Sequence[Measurement], where: str
) -> Iterator[Problem | None]:
    computed = {item.metric: item for item in again}
    for item in said:
        if item.metric not in computed:
            continue
        other = computed[item.metric]
        yield _differs(item.metric, item.value, other.value, where)
        mine, found = item.conditions.get("ci95"), other.conditions.get("ci95")
        for name, a, b in zip(
            ("low", "high"), mine or (None,) * 2, found or (None,) * 2, strict=True
        ):
            yield _differs(f"{item.metric} interval's {name}", a, b, where)


def _differs(what: str, said: float | None, again: float | None, where: str) -> Problem | None:
    if said is None and again is None:
        return None
    both = said is not None and again is not None
    if both and abs((said or 0) - (again or 0)) <= TOLERANCE * max(1.0, abs(again or 0)):
        return None
    return Problem(where, f"{what} says {_said(said)}, its evidence gives {_said(again)}")


def _said(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.12g}"
