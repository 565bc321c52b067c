"""Carry out a plan: export what is missing, score, time in shuffled rounds, record each cell.

Exports and scoring share the cores; timing has the machine to itself. A cell's record is written
the moment the cell ends, and each finished round is kept, so that a run killed at any point goes
on where it stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from harness import artifacts, machine
from harness.affinity import parse_cpus
from harness.children import excerpt, run_child
from harness.config import Matrix
from harness.errors import ArtifactDamaged
from harness.estimate import Estimator, export_limit_s
from harness.interfaces import RUNNERS
from harness.lint.single import lint_record
from harness.plan import Plan, PlannedCell
from harness.progress import Progress
from harness.provenance import git_revision
from harness.records import RunRecord, State
from harness.results import RunFolder
from harness.rounds import merge
from harness.sharding import score_in_shards, shards_for
from harness.tasks import ChildResult, ExportTask, MeasureTask
from harness.timed import MEASURED, Timed, run_together
from harness.units import parse_period_ns, parse_seconds

if TYPE_CHECKING:
    from harness.cluster import Cluster

T = TypeVar("T")
DONE: frozenset[State] = frozenset({"ok", "parity-failed", "tainted"})
"""States that are kept when the same command runs again; all others are tried once more."""


class Execution:
    """One pass over a plan. ``records`` grows as cells end."""

    def __init__(self, plan: Plan, matrix: Matrix, folder: RunFolder, machine_id: str) -> None:
        self.plan, self.matrix, self.folder = plan, matrix, folder
        self.machine_id = machine_id
        self.revision, self.dirty = git_revision()
        self.records: dict[str, RunRecord] = {}
        self.estimator = Estimator(matrix)
        self.jobs = matrix.jobs or machine.usable_cores()

    def run(self, progress: Progress) -> None:
        """Do everything that is not done yet.

        Raises:
            ResultsError: the results cannot be written. Nothing that was written is lost.
        """
        self._keep_finished()
        for planned in self.open():
            if planned.unsupported:
                self._fail(planned, "unsupported", planned.unsupported)
        self._export(progress)
        self._score(progress)
        timed = Timed(self)
        timed.latency(progress)
        timed.alone(progress)

    def remaining_s(self) -> float:
        """Estimate of the time that is left, in seconds."""
        self._keep_finished()
        todo = [planned for planned in self.open() if planned.unsupported is None]
        exports = {p.export.fingerprint: p.export for p in todo if p.export}
        missing = [task for task in exports.values() if not Path(task.folder).is_dir()]
        return self.estimator.total_s(missing, [planned.cell for planned in todo], self.jobs)

    def _keep_finished(self) -> None:
        for planned in self.plan.cells:
            record = self.folder.read_record(planned.id)
            if record is not None and record.state in DONE:
                self.records[planned.id] = record

    def open(self, measure: str | None = None) -> list[PlannedCell]:
        """Cells that are not done yet."""
        return [
            planned
            for planned in self.plan.cells
            if planned.id not in self.records and measure in (None, planned.cell.measure)
        ]

    def _export(self, progress: Progress) -> None:
        needed = {p.export.fingerprint: p.export for p in self.open() if p.export is not None}
        tasks = sorted(
            (task for task in needed.values() if not intact(Path(task.folder))),
            key=self.estimator.export_s,
            reverse=True,
        )

        def one(task: ExportTask) -> None:
            request = task.request
            name = f"export-{request.model.name}-{request.exporter.name}-{task.fingerprint[:10]}"
            with progress.step(f"export {request.model} {request.exporter}"):
                limit_s = export_limit_s(task, self.matrix.timeout_s)
                result = run_child(task, folder=self.folder.path, name=name, timeout_s=limit_s)
            if result.state == "ok":
                self.estimator.learn_export(task)
                return
            for planned in self.open():
                if planned.export is not None and planned.export.fingerprint == task.fingerprint:
                    failed: State = (
                        result.state
                        if result.state in ("unsupported", "timeout")
                        else "export-failed"
                    )
                    self._fail(planned, failed, f"export: {result.error}", name)

        self._each(one, tasks, self.jobs)

    def _score(self, progress: Progress) -> None:
        """Accuracy cells; each model's float parent first, so that others are paired with it."""
        cells = [*self.open("accuracy"), *self.open("parity")]
        parents = self._parents()
        first = [planned for planned in cells if planned.id in parents.values()]
        later = [planned for planned in cells if planned.id not in parents.values()]

        def one(planned: PlannedCell, shards: int) -> None:
            parent = parents.get(planned.cell.base_name)
            found = self.folder.detections_path(parent) if parent else None
            paired = found is not None and found.is_file() and parent != planned.id
            task = self.task(
                planned,
                detections=str(self.folder.detections_path(planned.id)),
                reference=str(found) if paired else None,
            )
            with progress.step(planned.title):
                self.finish(planned, [self._score_cell(task, planned, shards, cluster)])

        with contextlib.ExitStack() as stack:
            cluster = None
            if self.matrix.cluster and cells:
                from harness.cluster import Cluster

                cluster = Cluster(self.matrix.cluster, self.matrix.timeout_s)
                stack.enter_context(cluster)
            for wave in (first, later):
                shards = self._shards(wave, cluster)
                at_once = 1 if cluster else max(1, self.jobs // shards)
                self._each(partial(one, shards=shards), wave, at_once)

    def _shards(self, wave: Sequence[PlannedCell], cluster: Cluster | None) -> int:
        """Parts that a cell's images are split into: as asked, else so that no core is idle.

        What an early stop looks at in one order is not split, nor the work of a board, which
        serves one client after the other.
        """
        if self.matrix.shards is not None:
            return self.matrix.shards
        if cluster:
            return cluster.workers
        remote = any(RUNNERS.get(planned.cell.runner).remote for planned in wave)
        if remote or self.matrix.accuracy.until is not None:
            return 1
        return shards_for(len(wave), self.jobs, self.matrix.images)

    def _score_cell(
        self, task: MeasureTask, planned: PlannedCell, shards: int, cluster: Cluster | None
    ) -> ChildResult:
        """Run an accuracy or parity cell whole, or split over processes or a cluster's workers."""
        if planned.cell.measure != "accuracy" or (shards == 1 and cluster is None):
            return self._child(task, planned.id)
        return score_in_shards(
            task,
            planned.id,
            shards=shards,
            jobs=shards if cluster else min(shards, self.jobs),
            run=cluster.run if cluster else self._child,
            join=self._child,
        )

    def _parents(self) -> dict[str, str]:
        """Accuracy cell of the float parent by model: the plan's own, else the model's first."""
        if self.plan.parent is not None:
            return {planned.cell.base_name: self.plan.parent for planned in self.plan.cells}
        found: dict[str, str] = {}
        for planned in self.plan.cells:
            if planned.cell.measure == "accuracy" and planned.unsupported is None:
                found.setdefault(planned.cell.base_name, planned.id)
        return found

    def scored(self, planned: PlannedCell) -> RunRecord | None:
        """The accuracy record of the same artifact and runner."""
        for other in self.plan.cells:
            same = (other.folder, other.cell.runner) == (planned.folder, planned.cell.runner)
            if same and other.cell.measure == "accuracy" and other.id in self.records:
                return self.records[other.id]
        return None

    def task(
        self,
        planned: PlannedCell,
        *,
        number: int = 0,
        detections: str | None = None,
        reference: str | None = None,
        scored: str | None = None,
    ) -> MeasureTask:
        """What a child is told to do for a cell."""
        pace = self.matrix.latency.pace
        return MeasureTask(
            cell=planned.cell,
            folder=str(planned.folder),
            images=self.matrix.images,
            tier=self.matrix.latency.tier,
            round=number,
            rounds=self.matrix.latency.rounds,
            seed=self.matrix.latency.seed,
            detections=detections,
            reference=reference,
            scored=scored,
            pace_ns=parse_period_ns(pace, "the pace") if pace else None,
            sustain_s=parse_seconds(self.matrix.latency.sustain, "the duration"),
            cpus=parse_cpus(self.matrix.cpus) if self.matrix.cpus else None,
            audit=self.matrix.audit,
            plugins=planned.plugins,
            skip_bad=self.matrix.skip_bad,
            accuracy=self.matrix.accuracy,
            decoding=self.matrix.decoding,
        )

    def _child(self, task: MeasureTask, name: str) -> ChildResult:
        limit_s = self.limit_s(task)
        return run_child(task, folder=self.folder.path, name=name, timeout_s=limit_s)

    def limit_s(self, task: MeasureTask) -> float:
        """How long a child may take."""
        more = task.sustain_s if task.cell.measure == "sustain" else 0
        return float(self.matrix.timeout_s) + more

    def children(self, tasks: Sequence[tuple[MeasureTask, str]]) -> list[ChildResult]:
        """Run tasks that take turns, as many of the first ones as memory has room for.

        One on another machine runs alone: a board serves one client after the other.
        """
        here = list(takewhile(lambda one: not RUNNERS.get(one[0].cell.runner).remote, tasks))
        if len(here) < 2:
            return [self._child(*tasks[0])]
        return run_together(
            here,
            folder=self.folder.path,
            timeout_s=self.limit_s(tasks[0][0]),
            seed=self.matrix.latency.seed,
        )

    def _each(self, work: Callable[[T], None], items: Iterable[T], at_once: int) -> None:
        """Do ``work`` on all items, some at a time; the first error stops the rest."""
        with ThreadPoolExecutor(at_once) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def finish(self, planned: PlannedCell, results: Sequence[ChildResult]) -> None:
        """Write the record of a cell whose rounds are ``results``."""
        worst = next((r for r in results if r.state not in MEASURED), None)
        tainted = next((r for r in results if r.state == "tainted"), None)
        shown = worst or tainted or results[-1]
        log = self.folder.newest_log(planned.id) if worst else None
        self._write(planned, shown.state, shown.error, log, results)
        self.estimator.learn_cell(self.records[planned.id])

    def _fail(self, planned: PlannedCell, state: State, error: str, log: str | None = None) -> None:
        path = self.folder.log_path(log) if log else None
        self._write(planned, state, error, path, [])

    def _write(
        self,
        planned: PlannedCell,
        state: State,
        error: str | None,
        log: Path | None,
        results: Sequence[ChildResult],
    ) -> None:
        artifact = None
        if _has_manifest(planned.folder):
            artifact = artifacts.read_manifest(planned.folder)
            self.folder.write_artifact(artifact)
        record = RunRecord(
            cell=planned.cell,
            cell_id=planned.id,
            artifact_id=artifact.id if artifact else None,
            artifact_sha256=artifact.sha256 if artifact else None,
            artifact_size_bytes=artifact.size_bytes if artifact else None,
            machine_id=self.machine_id,
            git_revision=self.revision,
            git_dirty=self.dirty,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            elapsed_ns=sum(result.elapsed_ns for result in results),
            versions=results[-1].versions if results else {},
            measurements=merge([result.measurements for result in results]),
            state=state,
            error=error,
            log=excerpt(log) if log else None,
            preprocessing=results[-1].preprocessing if results else None,
            evidence=self.folder.evidence(planned.id),
            rounds=tuple(result.round for result in results if result.round),
            emulated=results[-1].emulated if results else None,
            board=results[-1].board if results else None,
        )
        facts = msgspec.to_builtins(machine.machine_record())
        found = lint_record(record, artifact, facts)
        record = msgspec.structs.replace(record, findings=found)
        self.folder.write_record(record)
        self.records[planned.id] = record


def intact(folder: Path) -> bool:
    """Whether a cached export is there and is what its manifest says; a damaged one is rebuilt."""
    try:
        artifacts.load(folder)
    except ArtifactDamaged:
        return False
    return True


def _has_manifest(folder: Path) -> bool:
    return (folder / artifacts.MANIFEST).is_file()
