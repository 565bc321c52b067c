"""From a matrix to cells: what will be exported, what will be measured, and what cannot be.

Needs no framework: model options are read from the source of the model's file, weights and
versions from disk. Each cell gets a name that changes when anything it depends on changes
(weights, code, options, calibration images, versions), so a finished record can be trusted.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from harness import artifacts, calibration, recipes, scorable, sweep, training_images, weights
from harness.cache import cache_dir, sha256_text
from harness.config import Calibration, Matrix
from harness.datasets import open_dataset
from harness.errors import BadConfig, MissingExtra
from harness.extras import installed
from harness.interfaces import EXPORTERS, MODELS, RUNNERS, Exporter, Runner, RunOptions
from harness.provenance import EXPORT_SOURCES, MEASURE_SOURCES, source_digest, versions
from harness.records import Cell, Options
from harness.registry import ROOT
from harness.requests import Request, complete, parse
from harness.results import PlannedId
from harness.tasks import ExportRequest, ExportTask

SHORT = 10


class PlannedCell(NamedTuple):
    """One cell, its export where one is needed, and why it cannot be done if so."""

    id: str
    cell: Cell
    folder: Path
    export: ExportTask | None
    unsupported: str | None
    plugins: tuple[str, ...] = ()

    @property
    def planned_id(self) -> PlannedId:
        return PlannedId(id=self.id, cell=self.cell)

    @property
    def title(self) -> str:
        """What a person is told is being measured."""
        cell = self.cell
        unit = "thread" if cell.threads == 1 else "threads"
        threads = f", {cell.threads} {unit}" if cell.measure == "latency" else ""
        return f"{cell.measure} {cell.model_name} {cell.exporter} {cell.runner}{threads}"


class Plan(NamedTuple):
    """All cells in the order asked, and what was left out because it is not installed.

    ``parent`` is the accuracy cell that all others are held against; None is each model's first.
    """

    cells: tuple[PlannedCell, ...]
    left_out: tuple[str, ...]
    parent: str | None = None

    @property
    def exports(self) -> dict[str, ExportTask]:
        """Exports that cells need, by fingerprint."""
        tasks = (planned.export for planned in self.cells if planned.unsupported is None)
        return {task.fingerprint: task for task in tasks if task is not None}


def make_plan(matrix: Matrix, plugins: Sequence[str] = ()) -> Plan:
    """Expand a matrix.

    Raises:
        UnknownName: a model, exporter or runner that does not exist.
        BadConfig: options that do not exist; nothing to do; classes to score that a model lacks.
        BadCheckpoint: weights that are not there.
    """
    data = open_dataset(matrix.data, limit=1, skip_bad=matrix.skip_bad)
    exporters, out_exporters = _chosen(matrix.exporters, "exporter")
    runners, out_runners = _chosen(matrix.runners, "runner")
    cells: list[PlannedCell] = []
    for export in _exports(matrix, exporters, plugins):
        scorable.check_classes(matrix, data, export.task.request.labels)
        exporter = EXPORTERS.get(export.task.request.exporter.name)
        for runner in _fitting(runners, exporter, matrix.targets, named=matrix.runners is not None):
            cells += _cells(matrix, export, exporter, runner)
    if not cells:
        raise BadConfig(
            "nothing to measure: no installed runner runs what the chosen exporters make"
            f" ({'; '.join((*out_exporters, *out_runners)) or 'check exporters and runners'})"
        )
    return Plan(tuple(_in_order(cells)), (*out_exporters, *out_runners))


def plan_against(parent: Path, folder: Path, matrix: Matrix, plugins: Sequence[str] = ()) -> Plan:
    """Cells that score an artifact and, before it, the one that it is held against.

    The parent runs on the first installed runner that can.

    Raises:
        ArtifactDamaged: one of them is not what its manifest says.
        BadConfig: they do not detect the same classes; nothing here can run one of them.
    """
    mine, theirs = artifacts.load(folder), artifacts.load(parent)
    if mine.labels != theirs.labels:
        raise BadConfig(
            f"{folder} and {parent} do not detect the same classes in the same order:"
            " compare an artifact with the float export of its own model"
        )
    anyhow = msgspec.structs.replace(matrix, runners=None)
    first = plan_artifact(parent, anyhow, plugins, against=theirs.sha256).cells[0]
    later = plan_artifact(folder, matrix, plugins, against=theirs.sha256)
    return later._replace(cells=(first, *later.cells), parent=first.id)


def plan_artifact(
    folder: Path, matrix: Matrix, plugins: Sequence[str] = (), *, against: str = ""
) -> Plan:
    """Cells that measure one artifact that is there already.

    Args:
        against: SHA-256 of the artifact that it is held against, which its scores depend on.

    Raises:
        ArtifactDamaged: it is not what its manifest says.
        BadConfig: the data has no ground truth and accuracy is asked; nothing here can run it.
    """
    artifact = artifacts.load(folder)
    if matrix.data != artifacts.GOLDEN_DATA:
        scorable.check_artifact(matrix, artifact.labels, folder, alone=not against)
    runners, left_out = _chosen(matrix.runners, "runner")
    cells: list[PlannedCell] = []
    for request in runners:
        runner = RUNNERS.get(request.name)
        fits = artifact.format in runner.formats and (
            not runner.remote or matrix.targets != ("cpu",)
        )
        if matrix.runners is None and not fits:
            continue
        for measure, threads, target in sweep.asked(matrix, single=True):
            cell = Cell(
                model=artifact.model,
                model_options=artifact.model_options,
                weights=artifact.weights_source,
                exporter=artifact.exporter,
                export_options=artifact.options,
                runner=runner.name,
                measure=measure,
                threads=threads,
                batch=artifact.inputs[0].shape[0],
                target=target,
                dataset=matrix.data,
                recipe=artifact.recipe,
            )
            reason = sweep.refusal(runner, artifact.format, cell)
            if measure == "parity" and artifacts.golden(folder) is None:
                reason = artifacts.NO_REFERENCE
            inputs = artifact.sha256 + artifact.fingerprint + against
            name = _cell_id(cell, inputs, matrix, runner)
            cells.append(PlannedCell(name, cell, folder, None, reason, tuple(plugins)))
    if not cells:
        raise BadConfig(f"no installed runner runs format {artifact.format}: {'; '.join(left_out)}")
    return Plan(tuple(cells), left_out)


def join(plans: Sequence[Plan]) -> Plan:
    """One plan of several, each cell once."""
    cells = {planned.id: planned for plan in plans for planned in plan.cells}
    left_out = dict.fromkeys(line for plan in plans for line in plan.left_out)
    parent = next((plan.parent for plan in plans if plan.parent), None)
    return Plan(tuple(cells.values()), tuple(left_out), parent)


def export_tasks(matrix: Matrix, plugins: Sequence[str] = ()) -> list[ExportTask]:
    """The exports of a matrix alone, whether anything here can run them or not."""
    exporters, _ = _chosen(matrix.exporters, "exporter")
    for request in exporters:
        if missing := _missing(EXPORTERS.get(request.name)):
            raise MissingExtra(missing)
    return [sized.task for sized in _exports(matrix, exporters, plugins)]


class _Sized(NamedTuple):
    """An export for a batch size; ``single`` where it is the first size of its exporter."""

    task: ExportTask
    batch: int
    single: bool


def _exports(
    matrix: Matrix, exporters: Sequence[Request], plugins: Sequence[str]
) -> Iterator[_Sized]:
    labels = Path(matrix.labels) if matrix.labels else None
    chains = [recipes.parse(text) for text in matrix.recipes]
    for text in matrix.models:
        model = _model(parse(text))
        found = weights.find(model.name, model.options, matrix.weights, labels)
        for chain, asked in itertools.product(chains, exporters):
            exporter = EXPORTERS.get(asked.name)
            options = complete(asked.options, exporter.options, f"exporter {asked.name}")
            trains = "training" in chain.needs
            images = _calibration(matrix, exporter.calibrates or "calibration" in chain.needs)
            for number, batch in enumerate(sweep.batches(matrix, exporter, asked.options)):
                sized = sweep.options_for(exporter, options, batch)
                request = ExportRequest(
                    model=model,
                    weights_path=str(found.path),
                    weights_sha256=found.sha256,
                    weights_source=found.source,
                    labels=found.labels,
                    exporter=Request(name=asked.name, options=sized),
                    calibration=images,
                    recipe=str(chain),
                    training=training_images.resolve(matrix, found) if trains else None,
                )
                yield _Sized(export_task(request, exporter, plugins), batch, number == 0)


def _calibration(matrix: Matrix, required: bool) -> Calibration:
    """The images that calibrate, which are none of those that are scored. Raises BadConfig."""
    found = calibration.resolve(matrix.calibration, matrix.data, required=required)
    if required and "accuracy" in matrix.measures:
        calibration.check_disjoint(found, matrix.data, matrix.images)
    return found


def export_task(
    request: ExportRequest, exporter: type[Exporter], plugins: Sequence[str]
) -> ExportTask:
    """The task of an export, fingerprinted by everything that goes into it."""
    digest = fingerprint(request, exporter, plugins)
    return ExportTask(
        request=request,
        fingerprint=digest,
        folder=str(cache_dir("exports") / digest[:32]),
        plugins=tuple(plugins),
    )


def fingerprint(
    request: ExportRequest, exporter: type[Exporter], plugins: Sequence[str] = ()
) -> str:
    """SHA-256 over weights, model, options, labels, calibration images, code and versions."""
    inputs = msgspec.structs.replace(request, weights_path="", weights_source="")
    return sha256_text(
        [
            msgspec.json.encode(inputs, order="sorted").decode(),
            calibration.digest(request.calibration),
            training_images.digest(request.training) if request.training else "",
            source_digest(EXPORT_SOURCES),
            msgspec.json.encode(versions(("torch", "numpy", "PIL", *exporter.modules))).decode(),
            *(Path(plugin).read_text(encoding="utf-8") for plugin in plugins),
        ]
    )


def static_options(factory_name: str) -> Options:
    """A model's options and defaults, read from its file unimported (that would need torch)."""
    path = ROOT / "models" / f"{factory_name}.py"
    if not path.is_file():
        parameters = inspect.signature(MODELS.get(factory_name)).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == factory_name:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {name.arg: ast.literal_eval(value) for name, value in pairs if value is not None}
    raise BadConfig(f"{path} defines no function {factory_name}")


def _model(request: Request) -> Request:
    if request.name not in MODELS.names():
        MODELS.get(request.name)
    options = complete(request.options, static_options(request.name), f"model {request.name}")
    return Request(name=request.name, options=options)


def _chosen(
    asked: tuple[str, ...] | None, kind: Literal["exporter", "runner"]
) -> tuple[list[Request], tuple[str, ...]]:
    """What is asked, or all that is installed; and a sentence for each one left out."""
    registry = EXPORTERS if kind == "exporter" else RUNNERS
    if asked is not None:
        requests = [parse(text) for text in asked]
        for request in requests:
            registry.get(request.name)
        return requests, ()
    chosen, left_out = [], []
    for name in registry.names():
        plugin: type[Exporter] | type[Runner] = registry.get(name)
        if issubclass(plugin, Runner) and plugin.measures_harness_only:
            continue
        if issubclass(plugin, Exporter) and plugin.on_request:
            continue
        missing = _missing(plugin)
        if missing is None:
            chosen.append(Request(name=name))
        else:
            left_out.append(f"{kind} {name}: {missing}")
    return chosen, tuple(left_out)


def _missing(plugin: type[Exporter] | type[Runner]) -> str | None:
    absent = [module for module in plugin.modules if not installed(module)]
    if not absent:
        return None
    return f"{', '.join(absent)} is not installed: run  pip install -e '.[{plugin.extra}]'"


def _fitting(
    runners: Sequence[Request], exporter: type[Exporter], targets: Sequence[str], *, named: bool
) -> list[type[Runner]]:
    """Runners for an exporter; a runner that was named stays, and its cells say why it cannot."""
    plugins = [RUNNERS.get(request.name) for request in runners]
    options = [RunOptions(target=target) for target in targets]
    able = [
        p
        for p in plugins
        if any(p().unsupported(exporter.format, option) is None for option in options)
    ]
    return able if able or not named else plugins


def _cells(
    matrix: Matrix,
    sized: _Sized,
    exporter: type[Exporter],
    runner: type[Runner],
) -> Iterator[PlannedCell]:
    missing = _missing(exporter) or _missing(runner)
    export, request = sized.task, sized.task.request
    for measure, threads, target in sweep.asked(matrix, single=sized.single):
        if measure != "latency" and runner.measures_harness_only:
            continue
        elsewhere = len(matrix.targets) > 1 and matrix.runners is None
        if elsewhere and runner().unsupported(exporter.format, RunOptions(target=target)):
            continue  # a runner of another target, which nobody named
        cell = Cell(
            model=request.model.name,
            model_options=request.model.options,
            weights=request.weights_source,
            exporter=exporter.name,
            export_options=request.exporter.options,
            runner=runner.name,
            measure=measure,
            threads=threads,
            batch=sized.batch,
            target=target,
            dataset=matrix.data,
            recipe=request.recipe,
        )
        reason = missing or sweep.refusal(runner, exporter.format, cell, exporter)
        name = _cell_id(cell, export.fingerprint, matrix, runner)
        yield PlannedCell(name, cell, Path(export.folder), export, reason, export.plugins)


def _cell_id(cell: Cell, inputs: str, matrix: Matrix, runner: type[Runner]) -> str:
    """Readable, and unique to the cell and everything that its result depends on."""
    digest = sha256_text(
        [
            msgspec.json.encode(cell, order="sorted").decode(),
            inputs,
            msgspec.json.encode(sweep.decides(matrix, cell.measure), order="sorted").decode(),
            source_digest(MEASURE_SOURCES),
            msgspec.json.encode(versions(("numpy", "PIL", *runner.modules))).decode(),
        ]
    )
    parts = [cell.model, cell.exporter, cell.runner, cell.measure, f"t{cell.threads}"]
    if cell.batch != 1:
        parts.append(f"b{cell.batch}")
    return "-".join((*parts, digest[:SHORT]))


def _in_order(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Accuracy before latency, and the float parents before what is compared with them."""

    def rank(planned: PlannedCell) -> tuple[bool, bool, bool]:
        exporter = EXPORTERS.get(planned.cell.exporter)
        return (
            planned.cell.measure == "latency",
            exporter.precision != "float32",
            exporter.name != "torch_float",
        )

    return sorted(cells, key=rank)
