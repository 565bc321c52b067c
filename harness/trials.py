"""Exports tried one after the other on the same images, each against the first: the float one.

Everything runs in child processes, and exports are kept as those of a run are.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

import msgspec

from harness import artifacts
from harness.accuracy.bootstrap import verdict
from harness.cache import cache_dir
from harness.children import excerpt, run_child
from harness.config import Matrix
from harness.errors import ExportFailed, Unsupported
from harness.execute import intact
from harness.plan import make_plan
from harness.records import Artifact, Measurement
from harness.tasks import ExportTask, MeasureTask

METRIC = "accuracy.voc12_map"


class Trial(NamedTuple):
    """One export and what became of it; figures are 0..1.

    Attributes:
        drop: of `METRIC` against the first trial; ``low`` and ``high`` are its 95 % interval over
            images. All 0 for the first.
        logits_db, offsets_db: SQNR of the outputs on the artifact's golden images, None where the
            file answers something else.
    """

    recipe: str
    exporter: str
    folder: Path
    artifact: Artifact
    value: float
    drop: float
    low: float
    high: float
    logits_db: float | None
    offsets_db: float | None

    @property
    def verdict(self) -> str:
        """The drop's interval in words."""
        return verdict(-self.high, -self.low)


HEAD = f"{'':50} VOC12   drop in points           SQNR, dB"
"""Over rows; the two ratios are those of logits and offsets."""


def row(label: str, trial: Trial) -> str:
    """A trial as a line of a table: mAP in points, its drop with interval, SQNR, verdict."""
    dbs = (trial.logits_db, trial.offsets_db)
    signal = " ".join("    –" if db is None else f"{db:5.1f}" for db in dbs)
    drop = f"{100 * trial.drop:+5.2f} [{100 * trial.low:+.2f}, {100 * trial.high:+.2f}]"
    return f"{label:50} {100 * trial.value:6.2f}  {drop:24} {signal}  {trial.verdict}"


class Trials:
    """Trials of one matrix, of which model, weights, data, images and calibration are taken.

    Use as a context manager.
    """

    def __init__(self, matrix: Matrix, plugins: tuple[str, ...] = ()) -> None:
        self._matrix, self._plugins = matrix, plugins
        self._folder = TemporaryDirectory(prefix="detbench-")
        self._first: Path | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, recipe: str, exporter: str) -> Trial:
        """Export by ``exporter``, with its options, and score; the first call is the float parent.

        Raises:
            ExportFailed: in the words of what failed, be it the export or its evaluation.
            Unsupported: this model cannot be exported so, or nothing here runs it.
        """
        asked = msgspec.structs.replace(
            self._matrix,
            recipes=(recipe,),
            exporters=(exporter,),
            measures=("accuracy",),
            threads=(1,),
        )
        plan = make_plan(asked, self._plugins)
        cells = [cell for cell in plan.cells if cell.unsupported is None]
        if not cells:
            reasons = [str(cell.unsupported) for cell in plan.cells] or list(plan.left_out)
            raise Unsupported("; ".join(reasons) or f"nothing here runs {exporter}")
        cell = cells[0]
        if cell.export is not None and not intact(cell.folder):
            self._child(cell.export)
        self._count += 1
        found = Path(self._folder.name) / f"{self._count}.npz"
        task = MeasureTask(
            cell=cell.cell,
            folder=str(cell.folder),
            images=asked.images,
            tier=asked.latency.tier,
            round=0,
            rounds=1,
            seed=0,
            detections=str(found),
            reference=None if self._first is None else str(self._first),
            plugins=self._plugins,
            skip_bad=asked.skip_bad,
            accuracy=asked.accuracy,
            decoding=asked.decoding,
            strict=False,  # the drop in mAP decides here
        )
        measured = {item.metric: item for item in self._child(task)}
        self._first = self._first or found
        change = measured.get(f"{METRIC}_change")
        interval = (change.conditions["ci95"] if change else None) or [0.0, 0.0]
        dbs = (measured.get(f"parity.{head}.sqnr_db") for head in ("logits", "offsets"))
        logits_db, offsets_db = (None if item is None else item.value for item in dbs)
        return Trial(
            recipe=recipe,
            exporter=exporter,
            folder=cell.folder,
            artifact=artifacts.load(cell.folder),
            value=measured[METRIC].value or 0.0,
            drop=-(change.value or 0.0) if change else 0.0,
            low=-interval[1],
            high=-interval[0],
            logits_db=logits_db,
            offsets_db=offsets_db,
        )

    def _child(self, task: ExportTask | MeasureTask) -> tuple[Measurement, ...]:
        logs, name = cache_dir("logs"), f"trial-{self._count}-{id(self)}"
        result = run_child(task, folder=logs, name=name, timeout_s=self._matrix.timeout_s)
        if result.state == "unsupported":
            raise Unsupported(str(result.error))
        if result.state != "ok":
            raise ExportFailed(f"{result.error}\n{excerpt(logs / 'logs' / f'{name}.log')}")
        return result.measurements
