"""The thread advisor: the fewest threads that nothing faster is told apart from, and what ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness.records import Measurement, RunRecord
from harness.report import RunData, build_report
from harness.report.join import join
from harness.report.scaling import Knee, knees, threads_table
from harness.report.timings import Timings
from tests.report_runs import MB2, made_up_run

FLOOR = {0: 0.02}


def timed(ms_by_threads: Mapping[int, float], *, used: int | None = None) -> RunData:
    """A run with one export on one runner, timed with each number of threads."""
    run = made_up_run(models=(MB2,))
    model = next(
        r for r in run.records if r.cell.measure == "latency" and r.cell.exporter == "onnx_float"
    )
    rng = np.random.default_rng(3)
    records = []
    for threads, ms in ms_by_threads.items():
        samples = tuple((rng.normal(ms, 0.002 * ms, 60) * 1e6).tolist())
        records.append(_with(model, threads, samples, used or threads))
    plan = [{"id": r.cell_id, "cell": msgspec.to_builtins(r.cell)} for r in records]
    return dataclasses.replace(run, records=records, run={**run.run, "plan": plan})


def _with(record: RunRecord, threads: int, samples: tuple[float, ...], used: int) -> RunRecord:
    measurements = []
    for one in record.measurements:
        if one.metric == "latency.inference":
            rounds = {**one.conditions, "rounds": [30, 30]}
            one = msgspec.structs.replace(one, samples=samples, conditions=rounds)
        if one.metric == "threads.used":
            one = Measurement(metric=one.metric, value=float(used), unit=one.unit)
        measurements.append(one)
    return msgspec.structs.replace(
        record,
        cell=msgspec.structs.replace(record.cell, threads=threads),
        cell_id=f"cell-t{threads}",
        measurements=tuple(measurements),
    )


def knee(run: RunData, floor: float | None = 0.02) -> Knee:
    (found,) = knees(join([run]).rows, Timings(), {0: floor})
    return found


def test_the_knee_is_where_more_threads_stop_to_help() -> None:
    found = knee(timed({1: 20.0, 2: 10.4, 4: 10.3}))
    assert found.row.threads == 2
    assert found.speed_up == pytest.approx(20 / 10.4, rel=0.01)
    assert found.efficiency == pytest.approx(20 / 10.4 / 2, rel=0.01)
    assert found.sentence == "4 threads are not told apart from it"


def test_all_threads_are_asked_for_while_each_one_helps() -> None:
    found = knee(timed({1: 20.0, 2: 11.0, 4: 6.5}))
    assert (found.row.threads, found.sentence) == (4, "nothing with fewer threads is as fast")


def test_threads_that_slow_it_down_are_not_asked_for() -> None:
    found = knee(timed({1: 10.0, 2: 14.0}))
    assert (found.row.threads, found.speed_up) == (1, 1.0)


def test_without_a_noise_floor_the_fastest_stays_and_says_why() -> None:
    found = knee(timed({1: 20.0, 2: 19.9}), floor=None)
    assert found.sentence == "whether fewer threads are as fast cannot be told"


def test_a_runtime_that_takes_other_threads_is_marked() -> None:
    table = threads_table(join([timed({1: 20.0, 2: 19.5}, used=1)]), Timings(), FLOOR)
    (line,) = table.lines
    keys = [column.key for column in table.columns]
    used = line.values[keys.index("used")]
    assert used.text == "1 of 1, 1 of 2"
    assert used.marks == ("differs",)


def test_one_number_of_threads_gives_no_advice() -> None:
    assert knees(join([timed({2: 10.0})]).rows, Timings(), FLOOR) == []


def test_a_report_over_batches_draws_the_time_of_an_image(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the charts")
    run = timed({1: 20.0, 2: 11.0})
    more = [
        msgspec.structs.replace(
            record,
            cell=msgspec.structs.replace(record.cell, batch=4),
            cell_id=f"{record.cell_id}-b4",
        )
        for record in run.records
    ]
    records = [*run.records, *more]
    plan = [{"id": r.cell_id, "cell": msgspec.to_builtins(r.cell)} for r in records]
    both = dataclasses.replace(run, records=records, run={**run.run, "plan": plan})
    page = build_report([both], tmp_path, title="t").html.read_text(encoding="utf-8")
    assert "Latency against batch" in page
    assert "4.00× per image at 4" in page
