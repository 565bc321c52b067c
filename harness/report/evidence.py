"""What stands behind the figures: cells without one, artifacts, machines, versions, commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from harness.records import Artifact
from harness.report.data import RunData
from harness.report.figures import count, duration, megabytes, significant
from harness.report.join import NOT_RUN, Entry, Joined
from harness.report.measured import anchor
from harness.report.tables import Column, Line, Table, Value, blank, text

MEANINGS = {
    "unsupported": "known not to work before any work started",
    "export-failed": "the exporter's toolchain refused",
    "parity-failed": "does not compute what the float network does",
    "timeout": "stopped at its time limit",
    "crashed": "the child process died",
    NOT_RUN: "planned, and not ended yet",
}


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Planned cells that ended alike without figures. ``logs`` are (cells, excerpt);
    the cells are left out where all share one log.
    """

    state: str
    meaning: str
    machine: str
    export: str
    runner: str
    reason: str
    cells: tuple[tuple[str, str, str], ...]
    logs: tuple[tuple[str, str], ...]


def missing(joined: Joined) -> tuple[Missing, ...]:
    """Every planned cell without figures, grouped by cause; cells are (label, id, anchor)."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in joined.entries:
        if not entry.measured:
            reason = entry.record.error if entry.record else None
            key = (entry.run, entry.state, entry.export, entry.runner, reason)
            groups.setdefault(key, []).append(entry)
    order = list(MEANINGS)
    found = [_missing(entries) for entries in groups.values()]
    return tuple(sorted(found, key=lambda m: order.index(m.state) if m.state in order else 99))


def _missing(entries: Sequence[Entry]) -> Missing:
    first = entries[0]
    logs: dict[str, list[str]] = {}
    for entry in entries:
        if entry.record and entry.record.log and entry.record.log.strip():
            logs.setdefault(entry.record.log.strip(), []).append(_cell_label(entry))
    not_run = (
        "No record of it: the run was stopped before it ended. The same command goes on there."
    )
    reason = (first.record.error or "No reason was recorded.") if first.record else not_run
    return Missing(
        state=first.state,
        meaning=MEANINGS.get(first.state, ""),
        machine=first.machine,
        export=first.export,
        runner=first.runner,
        reason=reason,
        cells=tuple((_cell_label(entry), entry.cell_id, anchor(entry)) for entry in entries),
        logs=tuple(("; ".join(cells) if len(logs) > 1 else "", log) for log, cells in logs.items()),
    )


def _cell_label(entry: Entry) -> str:
    cell = entry.cell
    what = (
        f"latency, {count(cell.threads, 'thread')}" if cell.measure == "latency" else cell.measure
    )
    return f"{entry.model}: {what}"


def artifact_table(joined: Joined) -> Table:
    """Every artifact that was measured, each once, by the SHA-256 of its bytes."""
    columns = (
        Column(key="model", label="Model", wide=True),
        Column(key="export", label="Export"),
        Column(key="precision", label="Precision"),
        Column(key="size", label="Size", unit="MB", numeric=True),
        Column(key="sha256", label="SHA-256 of the model files"),
        Column(key="weights", label="Weights"),
        Column(key="calibration", label="Calibration"),
        Column(key="toolchain", label="Toolchain"),
        Column(key="options", label="Options"),
        Column(key="fingerprint", label="Fingerprint of all inputs"),
        Column(key="made", label="Made in", unit="s", numeric=True),
    )
    found: dict[tuple[str, str], tuple[Entry, Artifact]] = {}
    for entry in joined.entries:
        if entry.artifact:
            key = (entry.artifact.sha256, entry.artifact.fingerprint)
            found.setdefault(key, (entry, entry.artifact))
    return Table(
        key="artifacts",
        caption="Every artifact, bound to its bytes and to everything that it was made from.",
        columns=columns,
        lines=tuple(_artifact_line(entry, artifact) for entry, artifact in found.values()),
        empty="No manifest of an artifact came with the records.",
    )


def _artifact_line(entry: Entry, artifact: Artifact) -> Line:
    calibration = artifact.calibration
    calibrated = (
        Value(
            text=count(len(calibration.sha256), "image"),
            sort=len(calibration.sha256),
            note=f"{calibration.dataset}:{calibration.split}, seed {calibration.seed}",
        )
        if calibration
        else blank("needs none" if artifact.precision == "float32" else "without images")
    )
    return Line(
        values=(
            text(entry.model),
            text(entry.export, note="; ".join(artifact.notes)),
            text(artifact.precision, note=artifact.format),
            Value(text=megabytes(artifact.size_bytes), sort=artifact.size_bytes / 1e6),
            text(artifact.sha256, mono=True),
            text(artifact.weights_source, note=artifact.weights_sha256[:12]),
            calibrated,
            text(pairs(artifact.toolchain)),
            text(pairs({"recipe": artifact.recipe, **artifact.options})),
            text(artifact.fingerprint[:16], mono=True),
            Value(text=f"{artifact.export_ns / 1e9:,.1f}", sort=artifact.export_ns / 1e9),
        )
    )


def pairs(mapping: Mapping[str, Any]) -> str:
    """``a 1, b 2``, in the order of the keys."""
    return ", ".join(f"{key} {_plain(value)}" for key, value in sorted(mapping.items()))


def facts(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Free-form nested facts as flat (name, value) pairs, in the order given."""
    found: list[tuple[str, str]] = []
    for key, value in nested.items():
        label = f"{prefix} › {key}" if prefix else str(key)
        label = label.replace("_", " ")
        if isinstance(value, Mapping):
            found += facts(value, label)
        else:
            found.append(
                (label.replace(" bytes", ""), _size(value) if "bytes" in label else _plain(value))
            )
    return found


def _size(value: Any) -> str:
    """A number of bytes with the binary unit that fits; anything else as it is."""
    if not isinstance(value, int) or isinstance(value, bool):
        return _plain(value)
    for unit in ("B", "KiB", "MiB"):
        if value < 1 << 10:
            return f"{significant(value)} {unit}"
        value /= 1 << 10
    return f"{significant(value)} GiB"


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    return str(value)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where one run comes from: what the machine is, and how the run was made."""

    machine: str
    facts: tuple[tuple[str, str], ...]
    run: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def provenance(runs: Sequence[RunData], joined: Joined) -> tuple[Provenance, ...]:
    """One entry for each run, in the order of the runs."""
    return tuple(
        Provenance(
            machine=joined.machines[index],
            facts=tuple(facts(run.machine)),
            run=tuple(_run_facts(run)),
            versions=tuple(_versions(run)),
        )
        for index, run in enumerate(runs)
    )


def command(run: RunData) -> str:
    """The command that made a run, as it is typed."""
    given = run.run.get("command") or ""
    return given if isinstance(given, str) else shlex.join(str(part) for part in given)


def floor_text(run: RunData) -> str:
    """The noise floors in words: of cells that took turns, and of cells that did not."""
    turns = [turn.turns_floor for record in run.records for turn in record.rounds]
    known = [f"{100 * floor:.1f} %" for floor in sorted({t for t in turns if t is not None})]
    words = [f"{' and '.join(known)} by turns"] if known else []
    apart = run.run.get("noise_floor")
    if isinstance(apart, int | float) and not isinstance(apart, bool):
        words.append(f"{100 * apart:.1f} % one after the other")
    return f"{', '.join(words)} (one cell, several processes)" if words else "not measured"


def _run_facts(run: RunData) -> Iterable[tuple[str, str]]:
    facts_of = run.run
    yield "Name", _plain(facts_of.get("name"))
    yield "Command", command(run) or "not known"
    yield "Started", moment(_plain(facts_of.get("started_at")))
    yield "Git revision", revision(run)
    yield "Tier", _plain(facts_of.get("tier"))
    yield "Rounds", _plain(facts_of.get("rounds"))
    yield "Seed of the order", _plain(facts_of.get("seed"))
    if facts_of.get("images") is not None:
        yield "Images scored", _plain(facts_of["images"])
    yield "Noise floor", floor_text(run)
    total = sum(record.elapsed_ns for record in run.records)
    yield "Time in cells", duration(total)
    for sentence in facts_of.get("left_out") or ():
        yield "Left out", _plain(sentence)


def moment(text: str) -> str:
    """An ISO time as ``2026-11-20 18:57 UTC``; anything else as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def revision(run: RunData, *, short: bool = False) -> str:
    """The git revision, and whether the checkout had changes; records of several are all named."""
    given = run.run.get("git_revision")
    found = {(str(given), bool(run.run.get("git_dirty")))} if given else set()
    found |= {(record.git_revision, record.git_dirty) for record in run.records}
    if not found:
        return "not known"
    return ", ".join(
        f"{name[:12] if short else name}{' with changes' if dirty else ''}"
        for name, dirty in sorted(found)
    )


def _versions(run: RunData) -> list[tuple[str, str]]:
    """Versions of the run, its records and its artifacts; several of one name are all listed."""
    found: dict[str, set[str]] = {}
    given = run.run.get("versions") or {}
    toolchains = [artifact.toolchain for artifact in run.artifacts.values()]
    for mapping in (given, *(record.versions for record in run.records), *toolchains):
        for key, value in mapping.items():
            found.setdefault(str(key), set()).add(str(value))
    return [(key, ", ".join(sorted(values))) for key, values in sorted(found.items())]
