"""How long a plan will take: what the same steps took here before, else rough defaults."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from harness import recipes
from harness.artifacts import read_manifest
from harness.cache import cache_dir, write_atomic
from harness.config import Matrix
from harness.errors import DetbenchError
from harness.interfaces import EXPORTERS
from harness.records import Cell, RunRecord
from harness.rounds import floor_rounds
from harness.tasks import ExportTask
from harness.timing import TIERS

SCORE_S = 15.0
"""Guess for an accuracy cell never measured here."""
CHILD_S = 4.0
"""Guess for starting a child, loading a runtime and warming up."""


class Estimator:
    """Remembers seconds by step in the cache folder."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self._lock = threading.Lock()
        self._path = cache_dir() / "seconds.json"
        self._known: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            self._known = json.loads(self._path.read_text(encoding="utf-8"))

    def export_s(self, task: ExportTask) -> float:
        guess = EXPORTERS.get(task.request.exporter.name).typical_export_s
        return self._known.get(_export_key(task), guess) + _extra_s(task)

    def cell_s(self, cell: Cell) -> float:
        known = self._known.get(self._cell_key(cell))
        if known is not None:
            return known
        if cell.measure == "accuracy":
            return SCORE_S
        return TIERS[self._matrix.latency.tier].seconds + self._matrix.latency.rounds * CHILD_S

    def total_s(self, exports: Sequence[ExportTask], cells: Sequence[Cell], jobs: int) -> float:
        """Exports and scoring share ``jobs`` cores, timing is alone."""
        shared = [self.export_s(task) for task in exports]
        shared += [self.cell_s(cell) for cell in cells if cell.measure == "accuracy"]
        timed = [self.cell_s(cell) for cell in cells if cell.measure == "latency"]
        before_s = max(sum(shared) / jobs, max(shared, default=0.0))
        return before_s + sum(timed) + self._control_s(timed)

    def _control_s(self, timed: Sequence[float]) -> float:
        """The A/A control for the noise floor is the cell that costs least, timed more often."""
        latency = self._matrix.latency
        count = floor_rounds(latency.rounds, trial=TIERS[latency.tier].trial)
        return min(timed, default=0.0) * count / latency.rounds

    def learn_export(self, task: ExportTask) -> None:
        with contextlib.suppress(DetbenchError):
            seconds = read_manifest(Path(task.folder)).export_ns / 1e9
            self._learn(_export_key(task), max(seconds - _extra_s(task), 1.0))

    def learn_cell(self, record: RunRecord) -> None:
        self._learn(self._cell_key(record.cell), record.elapsed_ns / 1e9)

    def _cell_key(self, cell: Cell) -> str:
        how = (
            f"{self._matrix.images} {cell.dataset}"
            if cell.measure == "accuracy"
            else f"{self._matrix.latency.tier} {self._matrix.latency.rounds} {cell.threads}"
        )
        return f"{cell.measure} {cell.model_name} {cell.exporter} {cell.runner} {how}"

    def _learn(self, key: str, seconds: float) -> None:
        with self._lock:
            self._known[key] = round(seconds, 1)
            data = json.dumps(self._known, indent=1, sort_keys=True).encode()
            with contextlib.suppress(DetbenchError):
                write_atomic(self._path, data)


def export_limit_s(task: ExportTask, asked_s: float) -> float:
    """How long an export may take: what was asked for, and what its recipe and options need."""
    return recipes.parse(task.request.recipe).limit_s(asked_s) + _extra_s(task)


def _extra_s(task: ExportTask) -> float:
    exporter = task.request.exporter
    return EXPORTERS.get(exporter.name)().extra_s(exporter.options)


def _export_key(task: ExportTask) -> str:
    return f"export {task.request.model} {task.request.exporter.name}"
