"""What ``detbench search`` tried before it compared the best, from the list that it left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.records import decode
from harness.report.data import RunData
from harness.report.figures import count, megabytes, milliseconds, percent, signed_points
from harness.report.tables import Column, Line, Table, Value, blank, text
from harness.search import FILE, NOT_BEATEN, Trial, front, outcome


def searched_table(runs: Sequence[RunData]) -> Table:
    """One line a trial, in the order of the search.

    Raises:
        ResultsError: a list that cannot be read.
    """
    trials = [trial for run in runs for trial in _trials(run)]
    best = front(trials)
    fit = sum(trial.fits for trial in trials)
    return Table(
        key="search",
        caption=(
            f"{count(len(trials), 'combination')} tried, {fit} within the limits of the search,"
            f" {len(best)} not beaten in mAP, latency and size at once. A trial is scored until a"
            " paired test knows whether it loses too much, and timed alone, only if it keeps to"
            " the limits. Those not beaten are measured again, on all images and by turns: their"
            " figures stand under All results."
        ),
        columns=(
            Column(key="trial", label="Trial", numeric=True),
            Column(key="recipe", label="Recipe", wide=True, pinned=True),
            Column(key="export", label="Export"),
            Column(key="runner", label="Runner"),
            Column(key="map", label="VOC12 mAP", unit="%", numeric=True),
            Column(key="change", label="Against float", unit="points", numeric=True),
            Column(key="latency", label="Inference", unit="ms", numeric=True),
            Column(key="size", label="Size", unit="MB", numeric=True),
            Column(key="outcome", label="Outcome", wide=True),
        ),
        lines=tuple(_line(number, trial, best) for number, trial in enumerate(trials, start=1)),
    )


def _trials(run: RunData) -> list[Trial]:
    path = None if run.folder is None else run.folder / FILE
    return decode(path.read_bytes(), list[Trial], path) if path and path.is_file() else []


def _line(number: int, trial: Trial, best: Sequence[Trial]) -> Line:
    said = outcome(trial, best)
    latency, size = trial.latency_ns, trial.size_bytes
    return Line(
        highlight=said == NOT_BEATEN,
        values=(
            Value(text=str(number), sort=float(number)),
            text(trial.recipe),
            text(trial.exporter),
            text(trial.runner),
            _figure(trial.map, percent, "not scored"),
            _figure(trial.change, signed_points, "not scored"),
            _figure(latency, milliseconds, "not timed"),
            _figure(size, megabytes, "no file"),
            text(said),
        ),
    )


def _figure(value: float | None, show: Callable[[float], str], reason: str) -> Value:
    return blank(reason) if value is None else Value(text=show(value), sort=float(value))
