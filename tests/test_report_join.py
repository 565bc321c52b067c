"""Planned cells and records come together, whatever is missing on either side."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from harness.errors import ResultsError
from harness.records import Cell, RunRecord
from harness.report import RunData
from harness.report.join import NOT_RUN, Joined, Row, join
from harness.report.overview import accounting
from tests.report_runs import MB2, made_up_run


def _with(data: RunData, **changes: Any) -> RunData:
    return dataclasses.replace(data, **changes)


def _row(joined: Joined, model: str, export: str, threads: int) -> Row:
    found = [
        row
        for row in joined.rows
        if row.model.startswith(model) and row.export == export and row.threads == threads
    ]
    assert len(found) == 1
    return found[0]


def _change(record: RunRecord, **cell: Any) -> RunRecord:
    return msgspec.structs.replace(record, cell=msgspec.structs.replace(record.cell, **cell))


def test_one_accuracy_cell_serves_all_thread_counts() -> None:
    joined = join([made_up_run()])
    one, two = (_row(joined, MB2, "onnx_int8", threads) for threads in (1, 2))
    assert one.accuracy is not None
    assert one.accuracy is two.accuracy
    assert one.latency is not None
    assert one.latency is not two.latency


def test_plan_order_is_kept_and_gaps_are_not_run() -> None:
    run = made_up_run()
    joined = join([run])
    assert [entry.cell_id for entry in joined.entries] == [item["id"] for item in run.run["plan"]]
    assert [entry.state for entry in joined.entries].count(NOT_RUN) == 1


def test_a_plan_of_bare_cells_gets_names_of_its_own() -> None:
    run = made_up_run()
    bare = [item["cell"] for item in run.run["plan"]]
    cells = [msgspec.convert(cell, Cell) for cell in bare]
    for plan in (bare, cells):
        joined = join([_with(run, run={**run.run, "plan": plan}, records=[])])
        names = {entry.cell_id for entry in joined.entries}
        assert len(names) == 42
        assert all(len(name) == 12 for name in names)


def test_records_without_a_plan_are_shown() -> None:
    run = made_up_run()
    joined = join([_with(run, run={"name": "x"})])
    assert len(joined.entries) == len(run.records)
    assert len(joined.rows) == 21  # the cell that was not run is not known


def test_of_two_records_of_a_cell_the_later_counts() -> None:
    run = made_up_run()
    first = run.records[0]
    later = msgspec.structs.replace(
        first, started_at="2026-11-21T00:00:00+00:00", state="crashed", error="later"
    )
    for records in ([later, *run.records], [*run.records, later]):
        joined = join([_with(run, records=records)])
        assert joined.superseded == 1
        assert joined.entries[0].state == "crashed"
        assert "1 older record of the same cells left out" in accounting(joined)


def test_a_plan_that_holds_something_else_is_refused() -> None:
    run = made_up_run()
    with pytest.raises(ResultsError, match="not a cell"):
        join([_with(run, run={"plan": [{"id": "x", "cell": {"model": 3}}]})])


def test_options_weights_target_and_batch_are_said_only_where_they_differ() -> None:
    run = made_up_run(models=[MB2])
    names = {(row.model, row.export, row.runner) for row in join([run]).rows}
    assert (MB2, "onnx_int8", "ort_cpu") in names
    other = next(r for r in run.records if r.cell.exporter == "onnx_int8")
    changes: list[dict[str, Any]] = [
        {"export_options": {"per_channel": False}},
        {"weights": "file:other.pth"},
        {"target": "gpu"},
        {"batch": 8},
    ]
    shown = []
    for change in changes:
        altered = msgspec.structs.replace(_change(other, **change), cell_id="other")
        joined = join([_with(run, run={}, records=[*run.records, altered])])
        entry = next(entry for entry in joined.entries if entry.cell_id == "other")
        shown.append((entry.model, entry.export, entry.runner))
    assert shown == [
        (MB2, "onnx_int8[per_channel=False]", "ort_cpu"),
        (f"{MB2} (file:other.pth)", "onnx_int8", "ort_cpu"),
        (MB2, "onnx_int8", "ort_cpu on gpu"),
        (MB2, "onnx_int8", "ort_cpu, batch 8"),
    ]


def test_scores_on_another_data_set_do_not_mix() -> None:
    run = made_up_run(models=[MB2])
    coco = [
        msgspec.structs.replace(_change(record, dataset="coco:val"), cell_id=f"{record.cell_id}-c")
        for record in run.records
        if record.cell.measure == "accuracy" and record.state == "ok"
    ]
    joined = join([_with(run, run={}, records=[*run.records, *coco])])
    on_coco = [row for row in joined.rows if row.dataset == "coco:val"]
    assert len(on_coco) == len(coco)
    assert all(row.latency is None and row.accuracy is not None for row in on_coco)


def test_machines_and_runs_get_names_that_tell_them_apart() -> None:
    runs = [made_up_run(), made_up_run(), made_up_run(machine="pi")]
    renamed = _with(runs[1], run={**runs[1].run, "name": "second"})
    assert join([runs[0], renamed, runs[2]]).machines == (
        "bench-a · default",
        "bench-a · second",
        "pi",
    )
    assert join(runs[:2]).machines == ("bench-a · default · run 1", "bench-a · default · run 2")
    assert join([_with(runs[0], machine={})]).machines == ("bench-a",)
    assert join([_with(runs[0], machine={}, records=[])]).machines == ("unnamed machine",)


def test_a_parity_cell_is_accounted_for_without_a_row() -> None:
    run = made_up_run(models=[MB2])
    checked = msgspec.structs.replace(_change(run.records[0], measure="parity"), cell_id="p")
    joined = join([_with(run, run={}, records=[checked])])
    assert joined.rows == ()
    assert joined.entries[0].measured is checked
