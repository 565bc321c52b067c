"""What a board measured for another machine is no figure of that machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import artifacts, measuring
from harness.errors import ParityFailed
from harness.report.binding import bind, digest
from harness.report.data import RunData, by_machine
from harness.report.page import page
from harness.report.render import markdown
from harness.tasks import MeasureTask
from tests.report_runs import MB2, made_up_run

BOARD = {"id": "raspberry-pi-4-4c-12345678", "board": "Raspberry Pi 4"}


def by_board(run: RunData, exporters: set[str]) -> RunData:
    """The run as if a board had run the artifacts of these exporters."""
    records = [
        msgspec.structs.replace(record, board=BOARD)
        if record.cell.exporter in exporters
        else record
        for record in run.records
    ]
    return dataclasses.replace(run, records=records)


def cells(run: RunData) -> list[str]:
    return [item["id"] for item in run.run["plan"]]


def test_a_run_without_other_machines_is_left_alone() -> None:
    run = made_up_run(models=[MB2])
    assert by_machine(run) == [run]
    run = made_up_run(models=[MB2], machine=BOARD["id"])  # a server on the machine itself
    run = by_board(run, {"onnx_float"})
    assert by_machine(run) == [run]


def test_a_board_s_records_are_a_run_of_its_own() -> None:
    run = by_board(made_up_run(models=[MB2]), {"tvm_dense"})
    here, there = by_machine(run)
    assert (here.machine_id, there.machine_id) == ("bench-a", BOARD["id"])
    assert {record.cell.exporter for record in there.records} == {"tvm_dense"}
    assert "tvm_dense" not in {record.cell.exporter for record in here.records}
    assert sorted(cells(here) + cells(there)) == sorted(cells(run))
    assert set(cells(there)) == {record.cell_id for record in there.records}
    assert there.run["noise_floor"] is None  # was measured on the other machine
    assert here.run["noise_floor"] == run.run["noise_floor"]


def test_a_run_that_boards_did_all_of_is_theirs_alone() -> None:
    run = by_board(
        made_up_run(models=[MB2]), {cell.cell.exporter for cell in made_up_run().records}
    )
    (there,) = by_machine(run)
    assert there.machine_id == BOARD["id"]


def test_a_report_names_the_board_and_is_bound_to_the_folder_of_the_run() -> None:
    parts = by_machine(by_board(made_up_run(models=[MB2]), {"onnx_float"}))
    assert bind(parts, title="t", margin=0.01).runs == ("bench-a/default",)
    assert digest(parts) == digest(parts[::-1])
    content, _, _ = page(parts, title="t", margin=0.01, pictures=False)
    rows = [line for line in markdown(content).splitlines() if "onnx_float" in line]
    assert rows
    assert any(BOARD["id"] in line for line in rows)


@pytest.mark.parametrize("board", [None, BOARD])
def test_failed_parity_asks_about_the_board_that_answered(
    board: dict[str, Any] | None, measure_task: MeasureTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*_: Any) -> Any:
        raise ParityFailed("logits are far off: check the exporter")

    class Opened:
        """Answers something else than the float network did."""

        artifact = priors = None
        kind = type("Kind", (), {"compare": staticmethod(compare)})
        session = type("Session", (), {"board": board})

        @staticmethod
        def infer(images: Any) -> Any:
            return images

    golden = type("Golden", (), {"images": np.zeros(1), "outputs": None})
    monkeypatch.setattr(artifacts, "golden", lambda _: golden)
    with pytest.raises(ParityFailed) as caught:
        measuring._parity(measure_task, Opened, None)  # type: ignore[arg-type]
    said = str(caught.value)
    assert said.startswith("logits are far off")
    assert (f"{BOARD['id']} answered this" in said) is (board is not None)
