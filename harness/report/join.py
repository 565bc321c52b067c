"""Planned cells meet their records, and accuracy cells meet the latency cells they belong to.

An `Entry` is one planned cell and what became of it. A `Row` is what a reader compares: one model,
exported and run in one way with one number of threads. Accuracy does not depend on the number of
threads, so one accuracy cell serves all rows of its pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import msgspec

from harness.errors import ResultsError
from harness.export_names import export_name, telling_options
from harness.records import Artifact, Cell, RunRecord, State, encode
from harness.report.data import RunData

MEASURED = ("ok", "tainted")
NOT_RUN = "not run"
STATES = (*get_args(State), NOT_RUN)
"""Everything that can become of a planned cell."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One planned cell. ``state`` is the record's, or ``not run`` where there is none."""

    run: int
    machine: str
    cell: Cell
    cell_id: str
    record: RunRecord | None
    artifact: Artifact | None
    model: str
    export: str
    runner: str

    @property
    def state(self) -> str:
        return NOT_RUN if self.record is None else self.record.state

    @property
    def measured(self) -> RunRecord | None:
        """The record, if it holds figures that count."""
        return self.record if self.state in MEASURED else None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to run one model, with the cells that tell its accuracy and its latency."""

    key: str
    run: int
    machine: str
    model: str
    export: str
    runner: str
    threads: int
    dataset: str
    accuracy_entry: Entry | None
    latency_entry: Entry | None

    @property
    def accuracy(self) -> RunRecord | None:
        return self.accuracy_entry.measured if self.accuracy_entry else None

    @property
    def latency(self) -> RunRecord | None:
        return self.latency_entry.measured if self.latency_entry else None

    @property
    def artifact(self) -> Artifact | None:
        entries = (self.latency_entry, self.accuracy_entry)
        return next((e.artifact for e in entries if e is not None and e.artifact), None)

    @property
    def size_bytes(self) -> int | None:
        records = (record for record in (self.latency, self.accuracy) if record)
        return next((r.artifact_size_bytes for r in records if r.artifact_size_bytes), None)

    @property
    def tainted(self) -> bool:
        return any(record and record.state == "tainted" for record in (self.accuracy, self.latency))

    @property
    def mixed_artifacts(self) -> bool:
        """Whether accuracy and latency were measured on different bytes under one name."""
        digests = {record.artifact_sha256 for record in (self.accuracy, self.latency) if record}
        return len(digests - {None}) > 1

    @property
    def pair(self) -> str:
        """Export and runner, as said in prose."""
        return f"{self.export} on {self.runner}"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Everything that the runs planned and measured. ``superseded`` counts older records."""

    machines: tuple[str, ...]
    entries: tuple[Entry, ...]
    rows: tuple[Row, ...]
    superseded: int

    @property
    def constant(self) -> tuple[str, ...]:
        """Columns that would say the same in every row: ``machine``, ``model``."""
        models = {entry.model for entry in self.entries}
        machine = () if len(set(self.machines)) > 1 else ("machine",)
        return machine if len(models) > 1 else (*machine, "model")


def join(runs: Sequence[RunData]) -> Joined:
    """Entries in planned order and the rows that hold at least one figure.

    Raises:
        ResultsError: a plan holds something that is not a cell.
    """
    machines = _machine_labels(runs)
    entries: list[Entry] = []
    superseded = 0
    for index, (run, machine) in enumerate(zip(runs, machines, strict=True)):
        latest = _latest(run.records)
        superseded += len(run.records) - len(latest)
        for cell, cell_id in _planned(run, latest):
            record = latest.get(_key(cell))
            artifact = run.artifacts.get(record.artifact_id or "") if record else None
            entries.append(
                Entry(
                    run=index,
                    machine=machine,
                    cell=cell,
                    cell_id=record.cell_id if record else cell_id,
                    record=record,
                    artifact=artifact,
                    model=cell.model_name,
                    export=cell.exporter,
                    runner=cell.runner,
                )
            )
    labelled = tuple(_with_labels(entries))
    return Joined(
        machines=tuple(machines),
        entries=labelled,
        rows=tuple(_rows(labelled)),
        superseded=superseded,
    )


def _machine_labels(runs: Sequence[RunData]) -> list[str]:
    names = [run.machine_id for run in runs]
    labels = [
        f"{name} · {run.run.get('name') or f'run {index + 1}'}" if names.count(name) > 1 else name
        for index, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    return [
        f"{label} · run {index + 1}" if labels.count(label) > 1 else label
        for index, label in enumerate(labels)
    ]


def _key(cell: Cell) -> bytes:
    return encode(cell)


def _latest(records: Iterable[RunRecord]) -> dict[bytes, RunRecord]:
    """The record that counts of each cell: the one started last."""
    latest: dict[bytes, RunRecord] = {}
    for record in sorted(records, key=lambda r: (r.started_at, encode(r))):
        latest[_key(record.cell)] = record
    return latest


def _planned(run: RunData, latest: Mapping[bytes, RunRecord]) -> list[tuple[Cell, str]]:
    """Cells of the plan, then recorded cells that the plan does not hold, each once."""
    cells: dict[bytes, tuple[Cell, str]] = {}
    for item in run.run.get("plan") or ():
        cell, cell_id = _cell(item)
        cells.setdefault(_key(cell), (cell, cell_id))
    for key in sorted(set(latest) - set(cells)):
        cells[key] = (latest[key].cell, latest[key].cell_id)
    return list(cells.values())


def _cell(item: Any) -> tuple[Cell, str]:
    """A planned cell and its id, from a `Cell`, its plain form, or ``{"id": …, "cell": …}``."""
    cell_id = ""
    if isinstance(item, Mapping) and "cell" in item:
        cell_id = str(item.get("id", ""))
        item = item["cell"]
    try:
        cell = msgspec.convert(item, Cell, from_attributes=True)
    except msgspec.ValidationError as error:
        raise ResultsError(f"the run's plan holds an entry that is not a cell: {error}") from None
    return cell, cell_id or hashlib.sha256(_key(cell)).hexdigest()[:12]


def _with_labels(entries: list[Entry]) -> Iterable[Entry]:
    """Say options, weights, target and batch only where they tell rows apart."""
    telling = telling_options(entry.cell for entry in entries)
    weights: dict[str, set[str]] = {}
    for entry in entries:
        weights.setdefault(entry.model, set()).add(entry.cell.weights)
    targets = {entry.cell.target for entry in entries}
    batches = {entry.cell.batch for entry in entries}
    for entry in entries:
        cell = entry.cell
        model = f"{entry.model} ({cell.weights})" if len(weights[entry.model]) > 1 else entry.model
        runner = cell.runner
        runner += f" on {cell.target}" if targets != {"cpu"} else ""
        runner += f", batch {cell.batch}" if batches != {1} else ""
        export = export_name(cell, telling[cell.exporter])
        yield replace(entry, model=model, export=export, runner=runner)


def _rows(entries: Sequence[Entry]) -> Iterable[Row]:
    pairs: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        cell = entry.cell
        key = (entry.run, entry.model, entry.export, cell.runner, cell.target, cell.dataset)
        pairs.setdefault(key, []).append(entry)
    for group in pairs.values():
        accuracies = [e for e in group if e.cell.measure == "accuracy"]
        latencies = [e for e in group if e.cell.measure == "latency"]
        for entry in latencies or accuracies[:1]:
            latency = entry if entry.cell.measure == "latency" else None
            row = _row(entry, _accuracy_of(entry, accuracies), latency)
            if row.accuracy or row.latency:
                yield row


def _accuracy_of(entry: Entry, accuracies: Sequence[Entry]) -> Entry | None:
    """The accuracy cell of a row: a measured one, with the same threads if there is one."""
    ranked = sorted(
        accuracies, key=lambda e: (e.measured is None, e.cell.threads != entry.cell.threads)
    )
    return ranked[0] if ranked else None


def _row(entry: Entry, accuracy: Entry | None, latency: Entry | None) -> Row:
    return Row(
        key=f"row-{entry.run + 1}-{entry.cell_id}",
        run=entry.run,
        machine=entry.machine,
        model=entry.model,
        export=entry.export,
        runner=entry.runner,
        threads=entry.cell.threads,
        dataset=entry.cell.dataset,
        accuracy_entry=accuracy,
        latency_entry=latency,
    )
