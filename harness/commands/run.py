"""``detbench run``: the whole path, from a matrix to a report."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from harness import affinity, cli, config, machine, results
from harness.commands.adopt import folder_of
from harness.config import Matrix
from harness.errors import ResultsError
from harness.execute import Execution
from harness.model_file import take
from harness.plan import Plan, join, make_plan, plan_artifact
from harness.progress import Progress, clock
from harness.provenance import git_revision
from harness.records import Measure, Record, RunRecord
from harness.registry import load_file
from harness.requests import split
from harness.results import RunFolder
from harness.summary import describe_plan, table

LISTS = ("models", "recipes", "exporters", "runners", "measures")


def run(options: argparse.Namespace) -> int:
    """Plan, execute, report."""
    matrix = started(config.load(options.matrix, overrides(options)), options)
    for plugin in options.plugin:
        load_file(Path(plugin))
    plugins = plugin_paths(options)
    models = tuple(take(matrix.models, plugins))
    matrix = msgspec.structs.replace(matrix, models=models)
    plans = [plan_artifact(folder_of(path), matrix, plugins) for path in options.artifact]
    if not plans or options.models or options.matrix:
        plans.insert(0, make_plan(matrix, plugins))
    return carry_out(join(plans), matrix, options)


def started(matrix: Matrix, options: argparse.Namespace) -> Matrix:
    """The matrix with the measures that options ask for beside it; binds to ``cpus`` first.

    Raises:
        BadConfig: cores that this process may not use.
        Unsupported: the system cannot bind to cores.
    """
    if matrix.cpus:
        affinity.bind(matrix.cpus)
    extra: dict[Measure, bool] = {"profile": options.profile, "sustain": bool(options.sustain)}
    more = tuple(name for name, asked in extra.items() if asked and name not in matrix.measures)
    return msgspec.structs.replace(matrix, measures=(*matrix.measures, *more))


def plugin_paths(options: argparse.Namespace) -> list[str]:
    return [str(Path(plugin).resolve()) for plugin in options.plugin]


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says over the matrix file."""
    found: dict[str, Any] = config.overrides(options.settings)
    for key in LISTS:
        if text := getattr(options, key, None):
            found[key] = split(text)
    for key in (
        "weights",
        "labels",
        "data",
        "images",
        "name",
        "cpus",
        "shards",
        "cluster",
        "decoding",
    ):
        if (value := getattr(options, key, None)) is not None:
            found[key] = value
    if getattr(options, "target", None):
        found["targets"] = split(options.target)
    if options.threads:
        found |= config.overrides([f"threads={options.threads}"])
    if options.batches:
        found |= config.overrides([f"batches={options.batches}"])
    if options.pace:
        found["latency.pace"] = options.pace
    if options.sustain:
        found["latency.sustain"] = options.sustain
    if options.until:
        found["accuracy.until"] = options.until
    for key in ("audit", "skip_bad"):
        if getattr(options, key):
            found[key] = True
    if options.tier:
        found["latency.tier"] = options.tier
    return found


def carry_out(plan: Plan, matrix: Matrix, options: argparse.Namespace) -> int:
    """Execute a plan and say what came of it; the exit code follows `harness.cli`."""
    facts = machine.machine_record()
    base = options.results or results.DEFAULT
    name = machine.machine_id(facts)
    folder = results.RunFolder(base, name, matrix.name)
    execution = Execution(plan, matrix, folder, name)
    expected = execution.remaining_s()
    if options.dry_run:
        print(describe_plan(plan, expected, as_json=options.json))
        return cli.FAILED if any(cell.unsupported for cell in plan.cells) else 0
    for line in plan.left_out:
        print(f"left out: {line}", file=sys.stderr)
    if not options.quiet:
        print(f"{len(plan.cells)} cells, about {clock(expected)} on this machine", file=sys.stderr)
    begin(folder, matrix, plan, facts)
    execution.run(Progress(expected, quiet=options.quiet))
    records = [execution.records[cell.id] for cell in plan.cells]
    print(table(records, as_json=options.json))
    write_report(folder.path, options)
    return exit_code(records, allow_tainted=options.allow_tainted)


def begin(folder: RunFolder, matrix: Matrix, plan: Plan, facts: Record) -> None:
    """Write what a run is, and that this plan is a part of it."""
    before = folder.read_run()
    revision, dirty = git_revision()
    run_record = results.Run(
        name=matrix.name,
        command=("detbench", *sys.argv[1:]),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=revision,
        git_dirty=dirty,
        tier=matrix.latency.tier,
        rounds=matrix.latency.rounds,
        seed=matrix.latency.seed,
        images=matrix.images,
        plan=results.merge_plans(
            before.plan if before else (), tuple(cell.planned_id for cell in plan.cells)
        ),
        noise_floor=before.noise_floor if before else None,
        left_out=plan.left_out,
        speeds=before.speeds if before else (),
    )
    folder.write_machine(facts)
    folder.write_run(run_record)


def exit_code(records: list[RunRecord], *, allow_tainted: bool) -> int:
    states = {record.state for record in records}
    if states - {"ok", "tainted"}:
        return cli.FAILED
    return cli.TAINTED if "tainted" in states and not allow_tainted else 0


def write_report(folder: Path, options: argparse.Namespace) -> None:
    """Make the page of a run, unless it is not wanted."""
    from harness.extras import installed

    if getattr(options, "no_report", True):
        return
    if not (installed("matplotlib") and installed("jinja2")):
        print("no report: run  pip install -e '.[report]'  and  detbench report", file=sys.stderr)
        return
    from harness.commands.report import write

    try:
        title = f"detbench: {folder.name}"
        page = write([folder], folder, title, pictures=not options.no_pictures)
    except ResultsError as error:
        print(f"no report: {error}", file=sys.stderr)
        return
    print(f"report: {page}", file=sys.stderr)
