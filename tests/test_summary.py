"""What a run prints at its end."""

from __future__ import annotations

import msgspec
import pytest

from harness.records import RunRecord
from harness.summary import table
from tests.report_runs import made_up_run


@pytest.fixture
def pair() -> list[RunRecord]:
    """A scored cell and the same export timed."""
    records = made_up_run().records
    timed = next(r for r in records if r.cell.measure == "latency" and r.state == "ok")
    alike = {"measure": "accuracy", "threads": 1}
    scored = next(
        r
        for r in records
        if r.cell.measure == "accuracy"
        and msgspec.structs.replace(timed.cell, **alike) == msgspec.structs.replace(r.cell, **alike)
    )
    return [scored, timed]


@pytest.mark.parametrize("order", [1, -1])
def test_a_profile_beside_a_score_does_not_hide_it(pair: list[RunRecord], order: int) -> None:
    scored, timed = pair
    profile = msgspec.structs.replace(
        timed, cell=msgspec.structs.replace(timed.cell, measure="profile"), measurements=()
    )
    (line,) = table([*[scored, profile][::order], timed], as_json=False).splitlines()[1:2]
    score = scored.measurement("accuracy.coco_map")
    assert score is not None
    assert score.value is not None
    assert f"{score.value * 100:.1f}" in line


def test_what_a_sweep_changes_tells_rows_apart(pair: list[RunRecord]) -> None:
    scored, timed = pair
    cell = msgspec.structs.replace(timed.cell, threads=2, batch=4, target="rpi4@tracker:9190")
    other = msgspec.structs.replace(timed, cell=cell)
    assert "2, batch 4, rpi4@tracker:9190" in table([scored, other], as_json=False)


def test_exports_of_one_exporter_are_told_apart_by_what_differs(pair: list[RunRecord]) -> None:
    _, timed = pair
    tuned, untuned = (
        msgspec.structs.replace(
            timed,
            cell=msgspec.structs.replace(
                timed.cell, export_options={"target": "native", "tune": tune}
            ),
        )
        for tune in ("15min", "no")
    )
    text = table([tuned, untuned], as_json=False)
    name = timed.cell.exporter
    assert f"{name}[tune=15min]" in text
    assert f"{name}[tune=no]" in text
    assert f"{name}[" not in table([tuned], as_json=False)


def test_a_score_on_one_board_is_not_another_s(pair: list[RunRecord]) -> None:
    scored, timed = pair
    cell = msgspec.structs.replace(timed.cell, target="rpi4@tracker:9190")
    elsewhere = msgspec.structs.replace(timed, cell=cell)
    first = table([scored, elsewhere], as_json=False).splitlines()[1]
    score = scored.measurement("accuracy.coco_map")
    assert score is not None
    assert score.value is not None
    assert f"{score.value * 100:.1f}" not in first
