"""`detbench compare`: verdicts by the method's rule 7, gates that pass and gates that fail."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness import stats
from harness.cli import main
from harness.comparison import gates
from harness.comparison.quantities import parse, positive_bytes, positive_ns
from harness.errors import BadInput
from harness.records import RunRecord
from tests.report_runs import MB2
from tests.run_folders import write_boxes, write_run

ROW = "onnx_int8 on ort_cpu, 1 thread"


def _slower(exporter: str, ratio: float) -> Callable[[RunRecord], RunRecord]:
    """Plant a regression: every time of one exporter's cells is ``ratio`` as long."""

    def change(record: RunRecord) -> RunRecord:
        if record.cell.exporter != exporter:
            return record
        changed = tuple(
            msgspec.structs.replace(m, samples=tuple(ratio * s for s in m.samples))
            if m.metric.startswith("latency.")
            else m
            for m in record.measurements
        )
        return msgspec.structs.replace(record, measurements=changed)

    return change


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write_run(tmp_path / "results", name="before", models=[MB2])


def _compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["compare", *map(str, arguments)])
    return code, capsys.readouterr().out


def _rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    _, text = _compare(capsys, *arguments, "--json")
    return {row["row"]: row for row in json.loads(text)["rows"]}


def _after(before: Path, **options: Any) -> Path:
    options = {"name": "after", "models": [MB2], **options}
    return write_run(before.parent.parent, **options)


def test_a_planted_regression_is_found_and_nothing_else(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _rows(capsys, before, _after(before, change=_slower("onnx_int8", 1.2)))
    speeds = {label: row["speed"]["inference"] for label, row in rows.items()}
    outcomes = {label: s["outcome"] for label, s in speeds.items() if s["a_p50_ns"]}
    assert len(outcomes) >= 9
    slow = {label for label, outcome in outcomes.items() if outcome == "slower"}
    assert slow == {label for label in outcomes if "onnx_int8" in label}
    assert set(outcomes.values()) == {"slower", "indistinguishable"}
    found = next(rows[label] for label in rows if ROW in label)["speed"]["inference"]
    assert found["words"] == "1.20× slower"
    assert found["verdict"]["low"] < 1.2 < found["verdict"]["high"]


def test_the_verdict_is_that_of_the_one_implementation_of_rule_7(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = _after(before, change=_slower("onnx_int8", 1.05), noise_floor=0.03)
    rows = _rows(capsys, before, after)
    records = []
    for folder in (before, after):
        path = next(folder.glob(f"cells/{MB2}-onnx_int8-latency-t1.json"))
        record = msgspec.json.decode(path.read_bytes(), type=RunRecord)
        records.append(record.measurement("latency.inference"))
    a, b = records
    rounds = (a.conditions["rounds"], b.conditions["rounds"])
    direct = stats.compare(a.samples, b.samples, noise_floor=0.03, rounds=rounds)
    said = next(row for label, row in rows.items() if ROW in label)
    assert said["speed"]["inference"]["verdict"] == msgspec.to_builtins(direct)


@pytest.mark.parametrize(
    ("ratio", "gate", "code"),
    [
        (1.2, "latency.p50 > +5%", 1),
        (1.2, "latency.p50 > +30%", 0),
        (1.0, "latency.p50 > +5%", 0),
        (1.0, "latency.p50 > 1ms", 1),
        (1.0, "latency.p50 > 1s", 0),
        (0.5, "latency.end_to_end.p50 < -10%", 1),
        (1.0, "coco_map < -0.5", 0),
        (1.0, "size > +1%", 0),
        (1.0, "size > 1MB", 1),
        (1.0, "memory.peak > +10%", 0),
        (1.0, "memory.peak > 300MB", 0),
        (1.0, "memory.peak > 100MB", 1),
    ],
)
def test_a_gate_passes_or_fails(
    before: Path, capsys: pytest.CaptureFixture[str], ratio: float, gate: str, code: int
) -> None:
    after = _after(before, change=_slower("onnx_int8", ratio))
    found, text = _compare(capsys, before, after, "--fail-if", gate)
    assert found == code, text
    assert ("FAILS" in text) == bool(code)


def test_a_gate_trips_only_where_the_limit_is_passed_beyond_the_noise(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = _after(before, change=_slower("onnx_int8", 1.06), noise_floor=0.02)
    gate = ("--fail-if", "latency.p50 > +5%")
    code, text = _compare(capsys, before, after, *gate)
    assert code == 0
    assert "cannot tell" in text
    assert "too close to the limit to tell" in text
    assert _compare(capsys, before, after, *gate, "--undecided", "fail")[0] == 1


def test_accuracy_trips_a_gate_only_with_its_interval(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def worse(record: RunRecord, drop: float) -> RunRecord:
        def lowered(m: Any) -> Any:
            if m.metric != "accuracy.coco_map" or record.cell.exporter != "onnx_int8":
                return m
            low, high = m.conditions["ci95"]
            limits = {**m.conditions, "ci95": [low - drop, high - drop]}
            return msgspec.structs.replace(m, value=m.value - drop, conditions=limits)

        return msgspec.structs.replace(
            record, measurements=tuple(map(lowered, record.measurements))
        )

    gate = ("--fail-if", "coco_map < -0.5")
    large = _after(before, name="large", change=lambda r: worse(r, 0.05))
    code, text = _compare(capsys, before, large, *gate)
    assert code == 1
    assert "−5.0" in text
    small = _after(before, name="small", change=lambda r: worse(r, 0.01))
    code, text = _compare(capsys, before, small, *gate)
    assert code == 0
    assert "gate coco_map < -0.5: cannot tell" in text
    assert "compared unpaired" in text


def test_detections_of_both_give_a_paired_interval(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = _after(before)
    write_boxes(before, frozenset({0}))
    write_boxes(after, frozenset({0, 1, 2, 3, 4}))
    rows = _rows(capsys, before, after)
    score = next(row for label, row in rows.items() if ROW in label)["accuracy"]
    change = score["accuracy.coco_map50"]
    assert change["how"] == "paired"
    assert change["change"] == pytest.approx(-0.1, abs=0.02)
    assert change["low"] < change["change"] < change["high"] < 0
    write_boxes(after, frozenset({0}))
    rows = _rows(capsys, before, after)
    score = next(row for label, row in rows.items() if ROW in label)["accuracy"]
    assert score["accuracy.coco_map"]["how"] == "same detections"
    assert score["accuracy.coco_map"]["change"] == 0


def test_what_is_unlike_stands_before_any_number(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(
        before.parent.parent,
        name="x",
        machine="bench-b",
        models=[MB2],
        tier="quick",
        revision="b" * 40,
    )
    code, text = _compare(capsys, before, other, "--markdown")
    assert code == 0
    head = text.partition("| Row")[0]
    for said in ("machine: bench-a (A), bench-b (B)", "git revision", "tier: rapid (A), quick (B)"):
        assert f"unlike {said}" in head
    assert "indistinguishable" in text


def test_smoke_and_taint_prove_nothing(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smoke = _after(before, tier="smoke", change=_slower("onnx_int8", 2))
    code, text = _compare(capsys, before, smoke, "--fail-if", "latency.p50 > +5%")
    assert code == 0
    assert "cannot tell: B was timed with tier smoke" in text
    assert "slower" not in text.partition("Faster and slower")[0]


def test_two_cells_of_one_run(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [before / "cells" / f"{MB2}-{e}-latency-t1.json" for e in ("onnx_float", "onnx_int8")]
    code, text = _compare(capsys, *cells, "--fail-if", "latency.p50 < -50%")
    assert code == 1
    assert "faster" in text
    assert "exporter: onnx_float (A), onnx_int8 (B)" in text
    names = [cell.stem for cell in cells]
    by_name = _compare(capsys, *names, "--results", before.parent.parent)[1]
    assert by_name.splitlines()[1:6] == text.splitlines()[1:6]


def test_revisions_within_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "results"
    write_run(base, name="one", models=[MB2], revision="a" * 40)
    write_run(base, name="two", models=[MB2], revision="b" * 40, change=_slower("tflite_int8", 1.3))
    rows = _rows(capsys, "a" * 8, "b" * 40, "--results", base)
    slow = {label for label, r in rows.items() if r["speed"]["inference"]["outcome"] == "slower"}
    assert slow
    assert all("tflite_int8" in label for label in slow)


def test_records_of_different_artifacts_under_one_name_prove_nothing(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(record: RunRecord) -> RunRecord:
        mixed = record.cell.exporter == "onnx_int8" and record.cell.measure == "latency"
        digest = "f" * 64 if mixed else record.artifact_sha256
        return msgspec.structs.replace(record, artifact_sha256=digest)

    code, text = _compare(capsys, before, _after(before, change=other))
    assert code == 0
    assert "cannot tell: B has records of different artifacts under one name" in text
    assert "artifacts within B" in text


def test_a_row_that_is_gone_is_undecided(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(record: RunRecord) -> RunRecord:
        if record.cell.exporter != "onnx_int8":
            return record
        return msgspec.structs.replace(record, state="crashed", measurements=(), error="gone")

    after = _after(before, change=crash)
    gate = ("--fail-if", "latency.p50 > +5%", "--undecided", "fail")
    code, text = _compare(capsys, before, after, *gate)
    assert code == 1
    assert "not measured in B" in text
    assert "only in A" in text


def test_the_gate_file_of_the_repository_holds(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).resolve().parents[1] / "detbench-gate.yaml"
    assert _compare(capsys, before, _after(before), "--gate", file)[0] == 0
    slow = _after(before, name="slow", change=_slower("onnx_int8", 1.4))
    assert _compare(capsys, before, slow, "--gate", file)[0] == 1


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("latency.p50 > 5 furlongs", "not a number with a unit"),
        ("latency.p50 > +5ms", "takes a change such as"),
        ("latency.p50 > 5%", "takes a change such as"),
        ("latency.p90 > +5%", "unknown metric 'latency.p90'"),
        ("coco_map < 60", "a change in AP points"),
        ("coco_map < -1ms", "a change in AP points"),
        ("coco_mpa < -1", "did you mean 'coco_map'"),
        ("latency.p50 = 5", "is not 'metric > limit'"),
        ("latency.p50 > ", "not a number with a unit"),
        ("size > +1e999%", "not a number"),
    ],
)
def test_a_gate_that_cannot_be_read_is_named_before_any_record_is(
    capsys: pytest.CaptureFixture[str], gate: str, said: str
) -> None:
    code = main(["compare", "nowhere", "nowhere", "--fail-if", gate])
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize("text", ["50", "ms", "50 parsecs", "-50ms", "0ms", "5MB"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--max-latency"):
        positive_ns(text, "--max-latency")


def test_units() -> None:
    assert positive_ns("50ms", "x") == 50e6
    assert positive_ns(".5 s", "x") == 5e8
    assert positive_bytes("4MiB", "x") == 4 * 2**20
    assert parse("−0.5", "x") == (-0.5, "", True)


def test_folders_without_runs_and_names_of_nothing(
    tmp_path: Path, before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for text, said in (
        (tmp_path / "empty", "holds no run.json"),
        ("no-such-thing", "neither a folder, nor a cell"),
        ("f" * 12, "no record below"),
    ):
        assert (
            main(["compare", str(before), str(text), "--results", str(before.parent.parent)]) == 2
        )
        assert said in capsys.readouterr().err


def test_gates_are_data() -> None:
    gate = gates.parse_gate("accuracy.coco_map<-0.5")
    assert dataclasses.asdict(gate)["metric"] == "coco_map"
