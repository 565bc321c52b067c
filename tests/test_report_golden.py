"""Markdown and CSV against whole golden files, and: the same records give the same bytes."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import random
from pathlib import Path

import msgspec
import pytest

from harness.report import ReportPaths, RunData, build_report
from harness.report.join import join
from harness.report.spreadsheet import csv_text
from harness.report.timings import Timings
from tests.report_runs import EVIL, made_up_run

GOLDEN = Path(__file__).parent / "golden"
ACCEPT = os.environ.get("DETBENCH_ACCEPT_GOLDEN") == "1"
"""Set it to write the files instead of comparing; look at the difference before committing."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    return build_report([made_up_run()], tmp_path_factory.mktemp("report"), title="Made-up run")


@pytest.mark.parametrize("kind", ["markdown", "csv"])
def test_equals_the_golden_file(paths: ReportPaths, kind: str) -> None:
    made: Path = getattr(paths, kind)
    golden = GOLDEN / made.name
    if ACCEPT:
        golden.write_bytes(made.read_bytes())
    assert made.read_text(encoding="utf-8") == golden.read_text(encoding="utf-8")


def _shuffled(run: RunData) -> RunData:
    records = list(run.records)
    random.Random(1).shuffle(records)
    artifacts = dict(reversed(list(run.artifacts.items())))
    return dataclasses.replace(run, records=records, artifacts=artifacts)


def test_the_same_records_give_the_same_bytes(paths: ReportPaths, tmp_path: Path) -> None:
    again = build_report([_shuffled(made_up_run())], tmp_path, title="Made-up run")
    for kind in ("html", "markdown", "csv"):
        assert getattr(again, kind).read_bytes() == getattr(paths, kind).read_bytes(), kind


def _rows(paths: ReportPaths) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(paths.csv.read_text(encoding="utf-8"))))


def test_csv_has_one_line_for_each_planned_cell(paths: ReportPaths) -> None:
    planned = [item["id"] for item in made_up_run().run["plan"]]
    assert [row["cell_id"] for row in _rows(paths)] == planned


def test_csv_holds_the_medians_that_the_samples_give(paths: ReportPaths) -> None:
    records = {record.cell_id: record for record in made_up_run().records}
    timed = [row for row in _rows(paths) if row["inference_p50_ns"]]
    assert len(timed) == 19
    for row in timed:
        found = records[row["cell_id"]].measurement("latency.inference")
        assert found is not None
        assert float(row["inference_p50_ns"]) == found.value


def test_csv_leaves_out_what_the_samples_do_not_license(paths: ReportPaths) -> None:
    few = next(row for row in _rows(paths) if row["inference_samples"] == "20")
    assert few["inference_p50_ns"]
    assert few["inference_p90_ns"] == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_csv_defuses_formulas(text: str) -> None:
    run = made_up_run()
    failed = next(record for record in run.records if record.error)
    altered = msgspec.structs.replace(failed, error=text)
    runs = [dataclasses.replace(run, records=[altered])]
    rows = csv.DictReader(io.StringIO(csv_text(runs, join(runs), Timings())))
    errors = {row["cell_id"]: row["error"] for row in rows}
    assert errors[failed.cell_id] == f"'{text}"


def test_markdown_shows_text_as_it_is(paths: ReportPaths) -> None:
    text = paths.markdown.read_text(encoding="utf-8")
    assert EVIL not in text
    assert "&lt;script>alert('pwned')&lt;/script>" in text
