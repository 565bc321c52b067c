"""Accuracy cells split over processes and a Dask cluster, and runs that leave out bad images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import cluster
from harness.datasets.shapes import Shapes
from harness.datasets.writers import write_voc
from harness.detections import load
from harness.errors import BadConfig
from harness.records import Measurement, RunRecord, decode
from tests.test_execution import Bench, _artifact_command

pytestmark = pytest.mark.slow
ACCURACY = ("--runners", "grid_cpu", "--measures", "accuracy")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture
def bench(tmp_path: Path, drawn: Path) -> Bench:
    return Bench(tmp_path, drawn)


def scored(bench: Bench, name: str, *more: str) -> tuple[RunRecord, Any]:
    """The record of the one accuracy cell of a run, and what was found."""
    done = bench.run(*ACCURACY, "--name", name, *more)
    (path,) = bench.folder.glob(f"results/*/{name}/cells/*.json")
    record = decode(path.read_bytes(), RunRecord, path)
    assert done.returncode == 0, (record.error, record.log, done.stderr)
    (found,) = path.parents[1].rglob("*.npz")
    assert [file.name for file in found.parent.iterdir()] == [found.name]
    return record, load(found)


def counted(record: RunRecord) -> list[Measurement]:
    """What must not depend on how the images were split."""
    return [item for item in record.measurements if not item.metric.startswith("time.")]


def same(first: tuple[RunRecord, Any], second: tuple[RunRecord, Any]) -> None:
    assert counted(first[0]) == counted(second[0])
    for one, other in zip(first[1].detections, second[1].detections, strict=True):
        for left, right in zip(one, other, strict=True):
            assert left.tobytes() == right.tobytes()
    times = [
        {item.metric: item for item in record.measurements if item.metric.startswith("time.")}
        for record, _ in (first, second)
    ]
    assert times[0].keys() == times[1].keys()
    assert times[0]["time.image"].conditions == times[1]["time.image"].conditions


def test_a_run_in_shards_is_the_run_in_one_piece(bench: Bench) -> None:
    pytest.importorskip("distributed", reason="the cluster's own package is optional")
    from distributed import LocalCluster

    whole = scored(bench, "whole")
    same(whole, scored(bench, "shards", "--shards", "4"))
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as here:
        spread = scored(bench, "spread", "--cluster", here.scheduler_address)
    same(whole, spread)
    assert spread[0].versions == whole[0].versions


def test_a_scheduler_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the cluster's own package is optional")
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(BadConfig, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 "):
        cluster.Cluster("tcp://127.0.0.1:9", 10)


def test_bad_images_end_a_run_or_are_counted(bench: Bench) -> None:
    write_voc(Shapes("val", 5), bench.folder / "data")
    root = bench.folder / "data/VOCdevkit/VOC2012"
    broken, gone = (f"shapes-v1-val-000000{k}" for k in (1, 3))
    (root / f"JPEGImages/{broken}.jpg").write_bytes(b"no picture")
    (root / f"Annotations/{gone}.xml").unlink()
    data = ("--data", f"voc:{root}:val", "--shards", "2")
    data += ("--set", "calibration.data=shapes:calibration")
    done = bench.run(*ACCURACY, *data)
    assert done.returncode == 1
    record = bench.records()["grid_cpu", "accuracy"]
    assert record.state == "crashed"
    assert re.search(rf"{broken}\.jpg cannot be read .* with --skip-bad", record.error or "")
    record, found = scored(bench, "skipping", *data, "--skip-bad")
    assert len(found.names) == 3
    skipped = record.measurement("accuracy.skipped")
    assert skipped is not None
    assert skipped.value == 2
    assert [entry["id"] for entry in skipped.conditions["bad"]] == [broken, gone]
    assert f"{gone}.xml cannot be read" in skipped.conditions["bad"][1]["reason"]


def test_a_folder_without_ground_truth_is_not_scored(bench: Bench) -> None:
    picture = bench.folder / "photos" / "a.png"
    picture.parent.mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(picture)
    assert bench.run(*ACCURACY).returncode == 0
    (artifact,) = {path.parent for path in (bench.folder / "cache/exports").rglob("artifact.json")}
    photos = ("--data", f"images:{picture.parent}")
    done = _artifact_command(bench, "eval", artifact, *photos)
    assert done.returncode == 2
    assert "has no ground truth, so" in done.stderr
    done = _artifact_command(bench, "latency", artifact, *photos)
    assert done.returncode == 0, done.stderr
