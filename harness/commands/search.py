"""``detbench search``: which recipe, exporter and runner to ship under limits."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness import config, machine, recipes, results
from harness import search as searching
from harness.cache import write_atomic
from harness.commands.run import begin, plugin_paths, write_report
from harness.config import Matrix
from harness.errors import BadConfig
from harness.execute import Execution
from harness.extras import require
from harness.interfaces import EXPORTERS, Exporter
from harness.model_file import take
from harness.plan import Plan, PlannedCell, join, make_plan
from harness.progress import Progress
from harness.records import Measure, RunRecord
from harness.registry import load_file
from harness.requests import split
from harness.results import RunFolder
from harness.search import Limits, Trial

FAILED = 1
PATIENCE = 10
"""Times as many combinations are drawn as trials are asked for, since some come again."""


class Way(NamedTuple):
    """How a network is exported and run."""

    exporter: str
    runner: str


def _exporter(way: Way) -> type[Exporter]:
    return EXPORTERS.get(way.exporter.partition(":")[0])


class Searcher:
    """Carries trials out, each combination once."""

    def __init__(
        self, matrix: Matrix, limits: Limits, folder: RunFolder, plugins: list[str]
    ) -> None:
        self.matrix, self.limits, self.folder, self.plugins = matrix, limits, folder, plugins
        self.facts = machine.machine_record()
        self.done: dict[str, tuple[Trial, tuple[float, float, float]]] = {}
        self.ways = self._ways()
        floats = (w for w in self.ways if _exporter(w).precision == "float32")
        way = self._parent_way = next(floats, Way("torch_float", "torch_cpu"))
        self._parent = self._plan(
            "accuracy", recipes=("none",), exporters=(way.exporter,), runners=(way.runner,)
        )

    def _ways(self) -> list[Way]:
        """Every exporter with every runner of its format, of those asked for or installed."""
        plan = self._plan("accuracy", recipes=("none",))
        able = [cell for cell in plan.cells if cell.unsupported is None]
        names = {text.partition(":")[0]: text for text in self.matrix.exporters or ()}
        found = (Way(names.get(c.cell.exporter, c.cell.exporter), c.cell.runner) for c in able)
        return list(dict.fromkeys(found))

    def trial(self, recipe: str, way: Way) -> tuple[Trial, tuple[float, float, float]]:
        """Measure a combination as far as it keeps to the limits."""
        name = f"{recipe} {way.exporter} {way.runner}"
        if name not in self.done:
            self.done[name] = self._measure(recipe, way)
        return self.done[name]

    def _measure(self, recipe: str, way: Way) -> tuple[Trial, tuple[float, float, float]]:
        asked = {"recipes": (recipe,), "exporters": (way.exporter,), "runners": (way.runner,)}
        trial = Trial(recipe=recipe, exporter=way.exporter, runner=way.runner)
        scoring = self._plan("accuracy", **asked)
        record = self._run(join([self._parent, scoring]), scoring.cells[0])
        trial = msgspec.structs.replace(
            trial, size_bytes=record.artifact_size_bytes, cells=(record.cell_id,)
        )
        if record.state not in ("ok", "tainted"):
            return self._judged(trial, record.error or record.state, None)
        change = record.measurement(f"{self.limits.metric}_change")
        score, until = record.measurement(self.limits.metric), record.measurement("accuracy.until")
        answer = until.conditions["answer"] if until is not None else None
        trial = msgspec.structs.replace(
            trial,
            map=score.value if score is not None else None,
            change=change.value if change is not None else 0.0,
        )
        if max(searching.violations(trial, self.limits, answer)) > 0:
            return self._judged(trial, "", answer)
        timing = self._plan("latency", **asked)
        record = self._run(join([scoring, timing]), timing.cells[0])
        latency = record.measurement("latency.inference")
        trial = msgspec.structs.replace(
            trial,
            latency_ns=latency.value if latency is not None else None,
            cells=(*trial.cells, record.cell_id),
        )
        return self._judged(trial, record.error or "" if latency is None else "", answer)

    def _judged(
        self, trial: Trial, why: str, answer: str | None
    ) -> tuple[Trial, tuple[float, float, float]]:
        broken = searching.violations(trial, self.limits, answer)
        if why:  # told as far outside of all limits, or the optimizer would ask for it again
            broken = (1.0, 1.0, 1.0)
        names = ("too slow", "too large", "loses too much")
        words = [name for name, by in zip(names, broken, strict=True) if by > 0]
        return msgspec.structs.replace(trial, fits=not words, why=why or ", ".join(words)), broken

    def together(self, best: Sequence[Trial]) -> Path:
        """Score the best trials on all images and time them by turns, in a folder of their own.

        Trials were timed one after the other, and scored until their question was answered.

        Returns:
            The folder.
        """
        accuracy = msgspec.structs.replace(self.matrix.accuracy, until=None)
        measures = ("accuracy", "latency")
        matrix = msgspec.structs.replace(
            self.matrix, name=f"{self.matrix.name}-front", accuracy=accuracy, measures=measures
        )
        asked = [("none", *self._parent_way), *((t.recipe, t.exporter, t.runner) for t in best)]
        plans = [
            make_plan(
                msgspec.structs.replace(
                    matrix, recipes=(recipe,), exporters=(exporter,), runners=(runner,)
                ),
                self.plugins,
            )
            for recipe, exporter, runner in dict.fromkeys(asked)
        ]
        folder = RunFolder(
            self.folder.machine_folder.parent, machine.machine_id(self.facts), matrix.name
        )
        self._carry_out(join(plans), matrix, folder)
        return folder.path

    def _plan(self, measure: Measure, **asked: tuple[str, ...]) -> Plan:
        return make_plan(
            msgspec.structs.replace(self.matrix, measures=(measure,), **asked), self.plugins
        )

    def _run(self, plan: Plan, wanted: PlannedCell) -> RunRecord:
        return self._carry_out(plan, self.matrix, self.folder)[wanted.id]

    def _carry_out(self, plan: Plan, matrix: Matrix, folder: RunFolder) -> dict[str, RunRecord]:
        begin(folder, matrix, plan, self.facts)
        execution = Execution(plan, matrix, folder, machine.machine_id(self.facts))
        execution.run(Progress(execution.remaining_s(), quiet=True))
        return execution.records


def search(options: argparse.Namespace) -> int:
    """Search, and say what is on the front."""
    optuna = require("optuna", extra="search")
    if options.trials < 1:
        raise BadConfig(f"--trials is {options.trials}: give at least 1")
    for plugin in options.plugin:
        load_file(Path(plugin))
    plugins = plugin_paths(options)
    limits = _limits(options)
    asked = _asked(options) | {"models": take([options.model], plugins), "recipes": ["none"]}
    if limits.drop is not None:
        asked["accuracy.until"] = f"drop < {100 * limits.drop:g} VOC12"
    matrix = config.load(None, asked)
    spaces = [searching.space(text) for text in split(options.recipes)]
    base = options.results or results.DEFAULT
    folder = RunFolder(base, machine.machine_id(machine.machine_record()), matrix.name)
    searcher = Searcher(matrix, limits, folder, plugins)
    _explore(optuna, searcher, spaces, options)
    trials = [trial for trial, _ in searcher.done.values()]
    kept = msgspec.json.format(msgspec.json.encode(trials), indent=1)
    write_atomic(folder.path / searching.FILE, kept)
    best = searching.front(trials)
    _say(trials, best, options)
    if not best:
        return FAILED
    together = searcher.together(best)
    write_atomic(together / searching.FILE, kept)
    write_report(together, options)
    return 0


def _explore(
    optuna: Any,
    searcher: Searcher,
    spaces: list[searching.Space],
    options: argparse.Namespace,
) -> None:
    """Ask for combinations until enough different ones were tried. The seed decides all of it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of its multi-objective sampler are marked new
        sampler = optuna.samplers.TPESampler(
            seed=options.seed,
            multivariate=True,
            group=True,
            constraints_func=lambda trial: trial.user_attrs["broken"],
        )
        study = optuna.create_study(
            directions=["maximize", "minimize", "minimize"], sampler=sampler
        )
        if any(space.text == recipes.NONE for space in spaces):  # it is known to lose nothing
            study.enqueue_trial({"recipe": recipes.NONE, "way": " ".join(searcher.ways[0])})
        for _ in range(PATIENCE * options.trials):
            if len(searcher.done) >= options.trials:
                return
            asked = study.ask()
            place = asked.suggest_categorical("recipe", [space.text for space in spaces])
            space = next(space for space in spaces if space.text == place)
            recipe = space.draw(
                lambda name, low, high, step: asked.suggest_float(name, low, high, step=step)  # noqa: B023  # called at once
            )
            words = asked.suggest_categorical("way", [" ".join(way) for way in searcher.ways])
            before = len(searcher.done)
            trial, broken = searcher.trial(recipe, Way(*words.split(" ")))
            asked.set_user_attr("broken", broken)
            study.tell(asked, trial.values)
            if len(searcher.done) > before and not options.quiet:
                print(f"{before + 1}/{options.trials} {_line(trial)}", file=sys.stderr, flush=True)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The matrix that all trials share."""
    asked: dict[str, Any] = {"name": f"search-{options.model.partition(':')[0]}", "threads": [1]}
    for key in ("weights", "labels", "data", "images", "name"):
        if getattr(options, key) is not None:
            asked[key] = getattr(options, key)
    for key in ("exporters", "runners"):
        if getattr(options, key):
            asked[key] = split(getattr(options, key))
    return {**asked, **config.overrides(options.settings)}


def _limits(options: argparse.Namespace) -> Limits:
    for name in ("max_latency_ms", "max_size_mb", "max_drop"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise BadConfig(f"--{name.replace('_', '-')} is {value:g}: give more than 0")
    return Limits(
        latency_ms=options.max_latency_ms,
        size_mb=options.max_size_mb,
        drop=None if options.max_drop is None else options.max_drop / 100,
    )


def _line(trial: Trial) -> str:
    score = "–" if trial.map is None else f"{100 * trial.map:.1f} mAP"
    size = "–" if trial.size_bytes is None else f"{trial.size_bytes / 1e6:.2f} MB"
    latency = "–" if trial.latency_ns is None else f"{trial.latency_ns / 1e6:.1f} ms"
    return f"{trial.name}: {score}, {latency}, {size}{f' ({trial.why})' if trial.why else ''}"


def _say(trials: list[Trial], best: list[Trial], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps([msgspec.to_builtins(trial) for trial in best], indent=1))
        return
    fit = sum(trial.fits for trial in trials)
    print(f"{len(trials)} combinations, {fit} within the limits, {len(best)} not beaten:")
    for trial in best or trials:  # where none fits, what each of them broke
        print(f"  {_line(trial)}")
