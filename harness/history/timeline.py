"""Medians of one row of one machine over time, a point a record, with what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness import results, stats
from harness.errors import BadInput
from harness.history.steps import Course, course
from harness.records import Cell, RunRecord, encode


@dataclass(frozen=True, kw_only=True)
class Point:
    """The median of one record in ns, when it was measured and of which code."""

    started_at: str
    revision: str
    median: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row over time. ``left_out`` counts records that were tainted or of tier smoke.

    ``short`` names the row among those of its model, ``runner`` its runtime.
    """

    machine: str
    row: str
    model: str
    short: str
    runner: str
    points: tuple[Point, ...]
    course: Course
    left_out: int


def lines(folders: Sequence[Path], metric: str) -> list[Line]:
    """Time lines of every row, records of all runs together.

    Raises:
        ResultsError: a file is damaged or edited.
        BadInput: no record has the metric.
        MissingExtra: ruptures is not installed.
    """
    loaded = (results.load_run(folder, every=True) for folder in folders)
    found = judged(
        (
            Measured(record, run.tier, run.noise_floor or 0.0)
            for _, run, records, _ in loaded
            for record in records
        ),
        metric,
    )
    if not found:
        raise BadInput(f"no record has '{metric}' with enough samples: give for example {KNOWN}")
    return found


class Measured(NamedTuple):
    """A record, with the tier and the noise floor of its run."""

    record: RunRecord
    tier: str
    floor: float


def judged(measured: Iterable[Measured], metric: str) -> list[Line]:
    """Time lines of the rows of any records.

    Raises:
        MissingExtra: ruptures is not installed.
    """
    points: dict[tuple[str, str, bytes], list[Point]] = {}
    floors: dict[str, float] = {}
    left_out: dict[tuple[str, str, bytes], int] = {}
    cells: dict[tuple[str, str, bytes], Cell] = {}
    for record, tier, floor in measured:
        found = record.measurement(metric)
        median = stats.percentile(found.samples, 50) if found and found.samples else None
        if median is None:
            continue
        key = _key(record)
        if record.state == "tainted" or tier == "smoke":
            left_out[key] = left_out.get(key, 0) + 1
            continue
        floors[key[0]] = max(floors.get(key[0], 0.0), floor)
        point = Point(started_at=record.started_at, revision=record.git_revision, median=median)
        points.setdefault(key, []).append(point)
        cells[key] = record.cell
    return list(_judged(points, floors, left_out, cells))


KNOWN = "latency.inference or latency.end_to_end"


def _judged(
    points: dict[tuple[str, str, bytes], list[Point]],
    floors: dict[str, float],
    left_out: dict[tuple[str, str, bytes], int],
    cells: dict[tuple[str, str, bytes], Cell],
) -> Iterable[Line]:
    for key, unsorted in sorted(points.items(), key=lambda item: item[0]):
        ordered = sorted(unsorted, key=lambda point: point.started_at)
        found = course([point.median for point in ordered], floors[key[0]])
        yield Line(
            machine=key[0],
            row=key[1],
            model=cells[key].model_name,
            short=f"{cells[key].exporter}, {_threads(cells[key])}",
            runner=cells[key].runner,
            points=tuple(ordered),
            course=found,
            left_out=left_out.get(key, 0),
        )


def _key(record: RunRecord) -> tuple[str, str, bytes]:
    """Machine, name and what exactly was asked; the data set does not change a time."""
    cell = record.cell
    name = f"{cell.model_name} {cell.exporter} on {cell.runner}, {_threads(cell)}"
    asked = msgspec.structs.replace(cell, dataset="", weights="")
    return record.machine_id, name, encode(asked)


def _threads(cell: Cell) -> str:
    return f"{cell.threads} thread{'' if cell.threads == 1 else 's'}"
