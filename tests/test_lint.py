"""The linter: each sin is planted in a clean run and must be named; the clean run has none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import cli
from harness.images import fingerprint
from harness.lint import RULES, lint_artifact, lint_path, lint_record, lint_runs
from harness.lint.rules import merged
from harness.records import Artifact, CalibrationList, Finding, Measurement, RunRecord, encode
from harness.report import RunData
from tests.report_runs import MB2, made_up_run

replace = msgspec.structs.replace
INT8, FLOAT = "onnx_int8", "onnx_float"


def _clean() -> RunData:
    """A made-up run with everything that the linter looks at, and nothing to find."""
    run = made_up_run(models=[MB2])
    image = next(iter(run.artifacts.values())).image
    return _records(
        run,
        lambda record: _measured(
            replace(record, preprocessing=fingerprint(image)),
            _images() if record.cell.measure == "accuracy" else None,
        ),
    )


def _images(content: str = "a" * 64, number: float = 300) -> Measurement:
    where = {"dataset": "shapes", "split": "val", "sha256": content}
    return Measurement(metric="accuracy.images", value=number, unit="images", conditions=where)


def _measured(record: RunRecord, *items: Measurement | None) -> RunRecord:
    """The record with ``items`` in place of those of the same name."""
    new = {item.metric: item for item in items if item is not None}
    kept = (item for item in record.measurements if item.metric not in new)
    return replace(record, measurements=(*kept, *new.values()))


def _without(record: RunRecord, *metrics: str) -> RunRecord:
    kept = (item for item in record.measurements if item.metric not in metrics)
    return replace(record, measurements=tuple(kept))


def _condition(record: RunRecord, metric: str, **changed: Any) -> RunRecord:
    found = record.measurement(metric)
    assert found is not None
    return _measured(record, replace(found, conditions={**found.conditions, **changed}))


def _records(
    run: RunData,
    change: Callable[[RunRecord], RunRecord],
    exporter: str | None = None,
    measure: str | None = None,
) -> RunData:
    """The run with ``change`` done to its measured records of an exporter and a measure."""
    records = tuple(
        change(record)
        if record.state == "ok"
        and exporter in (None, record.cell.exporter)
        and measure in (None, record.cell.measure)
        else record
        for record in run.records
    )
    return dataclasses.replace(run, records=records)


def _artifacts(run: RunData, of: str, /, **changed: Any) -> RunData:
    artifacts = {
        name: replace(artifact, **changed) if artifact.exporter == of else artifact
        for name, artifact in run.artifacts.items()
    }
    return dataclasses.replace(run, artifacts=artifacts)


def _artifact(run: RunData, exporter: str = INT8) -> Artifact:
    return next(one for one in run.artifacts.values() if one.exporter == exporter)


def _scored(change: Callable[[RunRecord], RunRecord], exporter: str | None = INT8) -> RunData:
    return _records(_clean(), change, exporter, "accuracy")


def _timed(change: Callable[[RunRecord], RunRecord], exporter: str | None = INT8) -> RunData:
    return _records(_clean(), change, exporter, "latency")


def _decoding(**changed: Any) -> RunData:
    run = _clean()
    return _artifacts(run, INT8, decoding=replace(_artifact(run).decoding, **changed))


def _single(metric: str, value: float) -> Measurement:
    return Measurement(metric=metric, value=value, unit="1")


def _calibrated(**changed: Any) -> RunData:
    listed = CalibrationList(dataset="shapes", split="calibration", seed=0, sha256=("b" * 64,))
    return _artifacts(_clean(), INT8, calibration=replace(listed, **changed))


def _every_score_named(record: RunRecord) -> RunRecord:
    """All scores under another name, as another evaluator gives them."""
    renamed = tuple(
        replace(item, metric="accuracy.pytorch_ssd_map")
        if item.metric == "accuracy.voc07_map"
        else item
        for item in record.measurements
        if not item.metric.endswith(("coco_map", "map50", "voc12_map"))
    )
    return replace(record, measurements=renamed)


def _everywhere(record: RunRecord, **changed: Any) -> RunRecord:
    """The record with conditions changed in all its measurements."""
    items = tuple(
        replace(item, conditions={**item.conditions, **changed}) for item in record.measurements
    )
    return replace(record, measurements=items)


def _on(record: RunRecord, data: str, split: str) -> RunRecord:
    """The record as scored on another split."""
    moved = replace(record.cell, dataset=f"{data}:{split}")
    return replace(_everywhere(record, split=split), cell=moved)


def _two_splits() -> RunData:
    run = _records(_clean(), lambda r: _on(r, "voc:/data", "test"), None, "accuracy")
    again = [_on(r, "voc:/data", "val") for r in run.records if r.cell.measure == "accuracy"]
    return dataclasses.replace(run, records=(*run.records, *again))


def _precision_and_recall(record: RunRecord) -> RunRecord:
    found = (_single("accuracy.precision", 1.0), _single("accuracy.recall", 0.61))
    return _measured(record, *found)


def _chosen_on_test(record: RunRecord) -> RunRecord:
    found = replace(_single("accuracy.f1", 0.7), conditions={"chosen_on": "shapes:val"})
    return _measured(record, found)


def _slow_whole(record: RunRecord) -> RunRecord:
    whole = record.measurement("latency.end_to_end")
    assert whole is not None
    longer = tuple(3 * sample for sample in whole.samples)
    return _measured(record, replace(whole, samples=longer))


def _few_samples(record: RunRecord) -> RunRecord:
    timed = record.measurement("latency.inference")
    assert timed is not None
    return _measured(record, replace(timed, samples=timed.samples[:5]))


def _no_float() -> RunData:
    run = _clean()
    kept = tuple(
        record
        for record in run.records
        if record.cell.exporter.endswith("int8") or record.cell.measure == "latency"
    )
    return dataclasses.replace(run, records=kept)


SINS: dict[str, Callable[[], RunData]] = {
    "calibration-overlap": lambda: _scored(
        lambda r: _measured(r, _single("accuracy.calibration_overlap", 7))
    ),
    "calibration-split": lambda: _calibrated(split="val"),
    "calibration-unlisted": lambda: _artifacts(_clean(), INT8, calibration=None),
    "preprocessing": lambda: _calibrated(preprocessing="f" * 64),
    "score-cut": lambda: _decoding(score_threshold=0.3),
    "detection-limit": lambda: _decoding(max_detections=20),
    "training-split": lambda: _scored(lambda r: _on(r, "shapes", "train"), exporter=None),
    "split-mixed": _two_splits,
    "different-images": lambda: _scored(lambda r: _measured(r, _images("c" * 64))),
    "skipped-images": lambda: _scored(lambda r: _measured(r, _single("accuracy.skipped", 2))),
    "few-images": lambda: _scored(
        lambda r: _measured(r, _images(number=20)), exporter=None
    ),
    "undecided-difference": lambda: _scored(
        lambda r: replace(
            _condition(r, "accuracy.coco_map_change", ci95=[-0.06, 0.02]),
            measurements=tuple(
                replace(m, value=-0.02, conditions={**m.conditions, "ci95": [-0.06, 0.02]})
                if m.metric == "accuracy.coco_map_change"
                else m
                for m in r.measurements
            ),
        )
    ),
    "metric-mixed": lambda: _scored(_every_score_named),
    "no-float-parent": _no_float,
    "published-figure": lambda: _scored(
        lambda r: _condition(r, "accuracy.voc07_map", published="the paper, table 3")
    ),
    "threshold-on-test": lambda: _scored(_chosen_on_test),
    "perfect-precision": lambda: _scored(_precision_and_recall),
    "dirty-tree": lambda: _timed(lambda r: replace(r, git_dirty=True)),
    "smoke": lambda: _timed(lambda r: _condition(r, "latency.inference", tier="smoke")),
    "few-samples": lambda: _timed(_few_samples),
    "no-warm-up": lambda: _timed(lambda r: _without(r, "latency.warmup_inference")),
    "emulated": lambda: dataclasses.replace(
        _clean(), machine={"id": "m", "hypervisor": "TCGTCGTCGTCG"}
    ),
    "threads": lambda: _timed(lambda r: _measured(r, _single("threads.used", 7))),
    "stages-differ": lambda: _timed(
        lambda r: _without(
            r, "latency.end_to_end", "latency.preprocess", "latency.postprocess"
        )
    ),
    "stages-sum": lambda: _timed(_slow_whole),
    "no-effect": lambda: _artifacts(_clean(), INT8, size_bytes=13_000_000),
}  # fmt: skip  # one sin a line where it fits


def _rules(found: Sequence[Finding]) -> set[str]:
    return {one.rule for one in found}


def test_a_clean_run_has_no_finding() -> None:
    assert lint_runs([_clean()]) == ()


@pytest.mark.parametrize("rule", SINS)
def test_each_planted_sin_is_named_and_no_other(rule: str) -> None:
    found = lint_runs([SINS[rule]()])
    assert _rules(found) == {rule}
    for one in found:
        assert one.level == RULES[rule].level
        assert one.remedy == RULES[rule].remedy
        assert one.where
        assert any(MB2 in place for place in one.where)


def test_every_rule_has_its_sin() -> None:
    assert {*SINS, "unfit-recommendation"} == set(RULES)


@pytest.mark.parametrize(("tainted", "spread"), [(True, 0.0), (False, 0.2)])
def test_an_unfit_recommendation_is_named(tainted: bool, spread: float) -> None:
    run = _clean()
    rng = np.random.default_rng(0)
    record = next(r for r in run.records if r.cell.exporter == INT8 and r.cell.threads == 2)
    timed = record.measurement("latency.inference")
    assert timed is not None
    samples = tuple(1e7 * (1 + spread * rng.random(64)))
    record = _measured(record, replace(timed, samples=samples))
    record = replace(record, state="tainted" if tainted else "ok")
    assert _rules(lint_runs([run], [record])) == {"unfit-recommendation"}
    assert lint_runs([run], [r for r in run.records if r.cell.exporter == INT8][:1]) == ()


@pytest.mark.parametrize("exporter", [INT8, FLOAT])
def test_preprocessing_of_evaluation_and_timing_must_be_the_manifests(exporter: str) -> None:
    run = _timed(lambda r: replace(r, preprocessing="e" * 64), exporter)
    texts = {one.text for one in lint_runs([run])}
    assert texts == {
        "latency prepared images differently from what the manifest says",
        "evaluation and timing of one artifact prepared images differently",
    }


def test_a_sparse_export_as_large_as_the_dense_one_is_named() -> None:
    run = _artifacts(_clean(), FLOAT, exporter="onnx_sparse", size_bytes=13_400_000)
    name, sparse = next((k, a) for k, a in run.artifacts.items() if a.exporter == "onnx_sparse")
    dense = replace(sparse, exporter=FLOAT, sha256="d" * 64)
    first = replace(run.records[0], artifact_id="dense")
    both = dataclasses.replace(
        run,
        artifacts={**run.artifacts, name: sparse, "dense": dense},
        records=(first, *run.records[1:]),
    )
    assert [one.text for one in lint_runs([both])] == ["sparse, but as large as the dense export"]


def test_older_records_without_hashes_are_compared_by_their_number_of_images() -> None:
    run = _records(_clean(), lambda r: _without(r, "accuracy.images"), None, "accuracy")
    assert lint_runs([run]) == ()
    fewer = _records(run, lambda r: _everywhere(r, images=200), INT8, "accuracy")
    (found,) = lint_runs([fewer])
    assert found.rule == "different-images"
    assert found.text.endswith("(200 and 300 of them)")


def test_of_several_records_of_one_cell_the_last_counts() -> None:
    run = _clean()
    old = [
        replace(record, git_dirty=True, started_at="2025-01-01T00:00:00+00:00")
        for record in run.records
    ]
    assert lint_runs([dataclasses.replace(run, records=(*run.records, *old))]) == ()


def test_two_folders_without_splits_are_not_taken_for_one() -> None:
    run = _scored(lambda r: _everywhere(r, dataset="images", split="all"), exporter=None)
    listed = CalibrationList(dataset="images", split="all", seed=0, sha256=("b" * 64,))
    assert lint_runs([_artifacts(run, INT8, calibration=listed)]) == ()


def test_cells_that_failed_are_not_linted() -> None:
    record = replace(_clean().records[0], state="crashed", git_dirty=True)
    assert lint_record(record, None, {}) == ()


def test_findings_that_say_the_same_are_one_and_red_comes_first() -> None:
    found = lint_runs([_records(SINS["score-cut"](), lambda r: replace(r, git_dirty=True))])
    assert [one.rule for one in found] == ["score-cut", "dirty-tree"]
    assert len(found[1].where) > 5
    assert merged(reversed(found)) == (
        found[0],
        replace(found[1], where=tuple(found[1].where)),
    )


def _write(run: RunData, folder: Path) -> Path:
    """The run as a results folder."""
    place = folder / "machine" / "run"
    for name in ("cells", "artifacts"):
        (place / name).mkdir(parents=True)
    for record in run.records:
        (place / "cells" / f"{record.cell_id}.json").write_bytes(encode(record))
    for artifact in run.artifacts.values():
        path = place / "artifacts" / f"{artifact.sha256[:16]}.json"
        path.write_bytes(encode(artifact))
    (folder / "machine" / "machine.json").write_text(json.dumps(dict(run.machine)))
    (place / "run.json").write_text(json.dumps(dict(run.run)))
    return place


def test_a_results_folder_a_record_and_a_manifest_can_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _records(_decoding(max_detections=20), lambda r: replace(r, git_dirty=True), INT8)
    place = _write(run, tmp_path)
    assert _rules(lint_path(tmp_path)) == {"detection-limit", "dirty-tree"}
    (cell,) = place.glob("cells/*onnx_int8*accuracy*.json")
    assert _rules(lint_path(cell)) == {"detection-limit", "dirty-tree"}
    manifest = place / "artifacts" / f"{_artifact(run).sha256[:16]}.json"
    assert lint_path(manifest) == lint_artifact(_artifact(run))
    assert cli.main(["lint", str(tmp_path)]) == cli.FAILED
    said = capsys.readouterr().out
    assert "red    detection-limit: at most 20 detections an image count" in said
    assert said.endswith("1 red, 1 amber\n")
    assert cli.main(["lint", str(cell), "--json"]) == cli.FAILED
    assert [one["rule"] for one in json.loads(capsys.readouterr().out)] == [
        "detection-limit",
        "dirty-tree",
    ]


def test_amber_alone_and_nothing_at_all_end_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(SINS["dirty-tree"](), tmp_path / "amber")
    _write(_clean(), tmp_path / "clean")
    assert cli.main(["lint", str(tmp_path / "amber")]) == 0
    assert cli.main(["lint", str(tmp_path / "clean")]) == 0
    assert capsys.readouterr().out.endswith("nothing found\n")
