"""The lab's table: what its rows say of records, manifests and cells that were not measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from benchmarks import lab
from harness.records import FileEntry, RunRecord
from harness.results import RunFolder
from tests.report_runs import MB2, made_up_run
from tests.run_folders import write_run

HOW = lab.Trained("finetune:9", "finetune:7", "adaround")


@pytest.fixture
def scored() -> RunRecord:
    return next(
        record
        for record in made_up_run(models=[MB2]).records
        if record.cell.measure == "accuracy" and record.state == "ok"
    )


def _planned(record: RunRecord, **changed: Any) -> Any:
    cell = msgspec.structs.replace(record.cell, **changed)
    return SimpleNamespace(cell=cell, id=record.cell_id, folder=Path("export"))


def test_a_row_has_score_interval_verdict_and_both_sizes(tmp_path: Path, scored: RunRecord) -> None:
    folder = RunFolder(tmp_path, "bench-a", "default")
    write_run(tmp_path, models=[MB2])
    manifest = folder.read_artifact(scored.artifact_sha256)
    assert manifest is not None
    packed = FileEntry(path="weights.safetensors", role="weights", size_bytes=2_560_000, sha256="0")
    folder.write_artifact(msgspec.structs.replace(manifest, files=(*manifest.files, packed)))
    line = lab.row(_planned(scored, recipe="prune:0.9"), folder, {})
    assert line.startswith(f"| `prune:0.9` | {scored.cell.exporter}, {scored.cell.runner} | ")
    score = scored.measurement(lab.METRIC)
    assert score is not None
    assert score.value is not None
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == f"{score.value * 100:.1f}"
    assert " to " in cells[3]
    assert cells[5:] == [f"{(scored.artifact_size_bytes or 0) / 1e6:.2f}", "2.56"]


def test_a_cell_without_a_record_says_so(tmp_path: Path, scored: RunRecord) -> None:
    folder = RunFolder(tmp_path, "bench-a", "nothing")
    assert "| float |" in (line := lab.row(_planned(scored), folder, {}))
    assert "not measured" in line


def test_training_alone_has_a_row_of_its_own() -> None:
    chains = lab.chains(HOW)
    assert chains[:2] == ["none", "finetune:9"]
    assert "prune:0.9+finetune:7" in chains
    assert not [c for c in lab.chains(lab.Trained("none", "none", "adaround")) if "finetune" in c]


ASKED = {"models": ["mb2_ssd_lite"], "threads": [1], "measures": ["accuracy"], "images": 2}


def test_timing_adds_to_the_same_scores() -> None:
    scored = lab.plan(ASKED, HOW, latency=False).cells
    both = lab.plan(ASKED, HOW, latency=True).cells
    assert {planned.cell.measure for planned in scored} == {"accuracy"}
    assert {planned.id for planned in scored} < {planned.id for planned in both}
    timed = {planned.cell.exporter for planned in both if planned.cell.measure == "latency"}
    assert timed == {"torch_float", "tvm_sparse", *lab.REAL}


def test_an_exporter_of_sparse_files_gets_trained_pruned_networks() -> None:
    cells = lab.plan(ASKED, HOW, latency=False).cells
    sparse = [planned.cell.recipe for planned in cells if planned.cell.exporter == "tvm_sparse"]
    assert sparse == ["prune:0.8+finetune:7", "prune:0.9+finetune:7"]


def test_a_time_that_was_disturbed_says_so() -> None:
    timed = next(
        record
        for record in made_up_run(models=[MB2]).records
        if record.cell.measure == "latency" and record.state == "ok"
    )
    found = timed.measurement("latency.inference")
    assert found is not None
    assert found.value is not None
    assert lab._latency(timed) == f"{found.value / 1e6:.1f}"
    disturbed = msgspec.structs.replace(timed, state="tainted")
    assert lab._latency(disturbed) == f"{found.value / 1e6:.1f} (tainted)"
    assert lab._latency(None) == ""
