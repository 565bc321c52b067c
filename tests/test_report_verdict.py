"""The verdict: right where the figures carry it, and silent where they do not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from harness.records import Measurement, RunRecord
from harness.report import RunData, scores
from harness.report.charts import groups
from harness.report.join import join
from harness.report.timings import Timings
from harness.report.verdict import MARGIN, Judge, Judgement
from tests.report_runs import MB2, made_up_run

Change = Callable[[RunRecord], RunRecord]


def _judge(run: RunData, margin: float = MARGIN) -> Judgement:
    rows = join([run]).rows
    metric = scores.primary_metric(rows)
    judge = Judge(
        timings=Timings(),
        metric=metric,
        margin=margin,
        floors={0: run.run["noise_floor"]},
        tiers={0: run.run["tier"]},
    )
    (group,) = groups(rows, metric)
    return judge.judge(group.rows)


def _run(*changes: Change, **options: Any) -> RunData:
    run = made_up_run(models=[MB2], **options)
    records = list(run.records)
    for change in changes:
        records = [change(record) for record in records]
    return dataclasses.replace(run, records=records)


def _measurements(record: RunRecord, alter: Callable[[Measurement], Measurement]) -> RunRecord:
    return msgspec.structs.replace(
        record, measurements=tuple(alter(found) for found in record.measurements)
    )


def _of(exporter: str, measure: str, record: RunRecord) -> bool:
    return record.cell.exporter == exporter and record.cell.measure == measure


def _as_fast_as(exporter: str, model: str, factor: float = 1.0) -> Change:
    """Give ``exporter`` the samples of ``model`` times ``factor``."""
    source = {
        record.cell.threads: record for record in _run().records if _of(model, "latency", record)
    }

    def change(record: RunRecord) -> RunRecord:
        if not _of(exporter, "latency", record) or record.state != "ok":
            return record
        found = source[record.cell.threads].measurement("latency.inference")
        assert found is not None
        samples = tuple(round(sample * factor) for sample in found.samples)

        def alter(item: Measurement) -> Measurement:
            if item.metric != found.metric:
                return item
            return msgspec.structs.replace(found, samples=samples)

        return _measurements(record, alter)

    return change


def _changed_by(exporter: str, low: float, high: float) -> Change:
    """Give ``exporter`` a paired interval of its change against float."""

    def change(record: RunRecord) -> RunRecord:
        if not _of(exporter, "accuracy", record):
            return record

        def alter(item: Measurement) -> Measurement:
            if not item.metric.endswith("_change"):
                return item
            return msgspec.structs.replace(
                item, value=(low + high) / 2, conditions={**item.conditions, "ci95": [low, high]}
            )

        return _measurements(record, alter)

    return change


def _without(suffix: str) -> Change:
    """Drop measurements whose name ends so."""

    def change(record: RunRecord) -> RunRecord:
        kept = tuple(m for m in record.measurements if not m.metric.endswith(suffix))
        return msgspec.structs.replace(record, measurements=kept)

    return change


def _tainted(exporter: str | None = None) -> Change:
    def change(record: RunRecord) -> RunRecord:
        wanted = exporter is None or record.cell.exporter == exporter
        timed = record.cell.measure == "latency" and record.state == "ok"
        return msgspec.structs.replace(record, state="tainted") if wanted and timed else record

    return change


def _said(judgement: Judgement, lead: str) -> str:
    found = [sentence.text for sentence in judgement.sentences if sentence.lead == lead]
    assert len(found) == 1, [sentence.lead for sentence in judgement.sentences]
    return found[0]


def _leads(judgement: Judgement) -> list[str]:
    return [sentence.lead for sentence in judgement.sentences]


def test_names_the_fastest_within_the_margin() -> None:
    judgement = _judge(_run())
    assert judgement.headline == "onnx_int8 on ort_cpu, 2 threads"
    assert _said(judgement, "Fastest") == (
        "p50 4.18 ms, the fastest within 1 point of mAP of the float reference."
    )
    assert _said(judgement, "Gain").startswith(
        "2.34× faster than the fastest float row, onnx_float on ort_cpu, 2 threads, p50 9.77 ms;"
    )
    assert "95 % interval −0.9 to 0.0, paired" in _said(judgement, "Cost")
    assert _said(judgement, "Fastest on one thread") == "onnx_int8 on ort_cpu, p50 7.09 ms."
    assert [tile.value for tile in judgement.tiles] == [
        "4.18 ms",
        "6.62 ms",
        "60.8 %",
        "−0.4 points",
        "3.91 MB",
    ]


def test_a_faster_row_that_loses_too_much_is_passed_over() -> None:
    judgement = _judge(_run(_as_fast_as("tflite_int8", "onnx_int8", 0.5)))
    assert judgement.headline == "onnx_int8 on ort_cpu, 2 threads"
    assert _said(judgement, "Faster, less accurate") == (
        "tflite_int8 on litert_cpu (−2.1 points): proven to lose more than 1 point."
    )


def test_a_wider_margin_lets_it_win() -> None:
    run = _run(_as_fast_as("tflite_int8", "onnx_int8", 0.5))
    assert _judge(run, margin=0.03).headline == "tflite_int8 on litert_cpu, 2 threads"


def test_a_faster_row_whose_loss_is_not_settled_is_named() -> None:
    judgement = _judge(_run(_changed_by("onnx_int8", -0.02, 0.004)))
    assert judgement.headline == "onnx_float on ort_cpu, 2 threads"
    assert _said(judgement, "Perhaps faster").startswith(
        "onnx_int8 on ort_cpu, 2 threads; onnx_int8 on ort_cpu, 1 thread: a loss of more than"
        " 1 point is not excluded."
    )


def test_rows_that_no_test_tells_apart_are_said_to_be_so_and_the_smallest_wins() -> None:
    judgement = _judge(_run(_as_fast_as("onnx_float", "onnx_int8", 0.999)))
    assert judgement.headline == "onnx_int8 on ort_cpu, 2 threads"
    assert "indistinguishable from onnx_float on ort_cpu, 2 threads, and the smallest" in _said(
        judgement, "Fastest"
    )
    assert _said(judgement, "Gain").startswith("indistinguishable in speed from the fastest float")


def test_a_noise_floor_hides_what_is_smaller() -> None:
    faster = _as_fast_as("onnx_float", "onnx_int8", 0.9)
    assert _judge(_run(faster)).headline == "onnx_float on ort_cpu, 2 threads"
    noisy = _judge(_run(faster, noise_floor=0.2))
    assert noisy.headline == "onnx_int8 on ort_cpu, 2 threads"


def test_without_a_noise_floor_nothing_is_proven_faster() -> None:
    judgement = _judge(_run(noise_floor=None))
    assert judgement.headline == "onnx_int8 on ort_cpu, 2 threads"
    assert "by the median alone, for the run measured no noise floor" in _said(judgement, "Fastest")
    assert "faster by the median, not proven, than the fastest float row" in _said(
        judgement, "Gain"
    )


def test_a_tainted_row_is_never_recommended() -> None:
    judgement = _judge(_run(_tainted("onnx_int8")))
    assert judgement.headline == "onnx_float on ort_cpu, 2 threads"


def test_where_all_is_tainted_the_reader_is_told_what_to_do() -> None:
    judgement = _judge(_run(_tainted()))
    assert judgement.choice is None
    assert judgement.tiles == ()
    assert _said(judgement, "Speed") == (
        "Every row that would qualify is tainted: let the machine rest and measure again."
        " By the median alone onnx_int8 on ort_cpu, 2 threads, p50 4.18 ms, is the fastest of them."
    )


def test_smoke_gives_no_verdict_on_speed() -> None:
    judgement = _judge(_run(tier="smoke"))
    assert judgement.choice is None
    assert _said(judgement, "Speed").startswith("Tier smoke")
    assert _said(judgement, "Most accurate").startswith("torch_float on torch_cpu")


def test_unlicensed_medians_give_no_verdict() -> None:
    judgement = _judge(_run(samples=10))
    assert judgement.choice is None
    assert "No row has both a licensed median latency" in _said(judgement, "Speed")


def test_without_a_float_row_no_loss_is_judged() -> None:
    run = _run()
    int8 = [record for record in run.records if record.cell.exporter.endswith("int8")]
    judgement = _judge(dataclasses.replace(run, records=int8))
    assert judgement.choice is None
    assert "No float export" in _said(judgement, "Speed")


def test_a_reference_that_detects_nothing_is_no_measure() -> None:
    def useless(record: RunRecord) -> RunRecord:
        def alter(item: Measurement) -> Measurement:
            if not item.metric.endswith("_map") and not item.metric.endswith("_map50"):
                return item
            conditions = {**item.conditions, "ci95": [0.0, 0.004]}
            return msgspec.structs.replace(item, value=0.002, conditions=conditions)

        return _measurements(record, alter)

    judgement = _judge(_run(useless))
    assert judgement.choice is None
    assert _said(judgement, "Speed").startswith("The float reference scores 0.2 %, too little")


def test_without_a_paired_test_the_wider_interval_decides() -> None:
    unpaired = _without("_change")
    judgement = _judge(_run(unpaired))
    assert judgement.headline == "torch_float on torch_cpu, 2 threads"
    assert "Perhaps faster" in _leads(judgement)
    wide = _judge(_run(unpaired), margin=0.03)
    assert wide.headline == "onnx_int8 on ort_cpu, 2 threads"
    assert "−2.3 to +1.5, not paired" in _said(wide, "Cost")


def test_without_scores_only_size_is_left() -> None:
    judgement = _judge(_run(_without("_map"), _without("_map50"), _without("_change")))
    assert judgement.choice is None
    assert _said(judgement, "Most accurate") == "No row was scored."
    assert _said(judgement, "Smallest").startswith("onnx_int8 on ort_cpu, 3.91 MB")


def test_without_ground_truth_it_is_said_how_close_each_export_is() -> None:
    def unlabelled(record: RunRecord) -> RunRecord:
        """Only fidelity is left of the scores, and none of the float model's with itself."""
        score = record.measurement("accuracy.coco_map")
        if score is None:
            return record
        close = msgspec.structs.replace(score, metric="fidelity.coco_map")
        own = record.cell.exporter == "torch_float"
        return msgspec.structs.replace(record, measurements=() if own else (close,))

    judgement = _judge(_run(unlabelled))
    assert "Most accurate" not in _leads(judgement)
    said = _said(judgement, "Closest to the float model")
    assert re.fullmatch(
        r"by mAP against its detections, as there is no ground truth: (onnx|tflite)_float on"
        r" \w+ [\d.]+ %; .*onnx_int8 on ort_cpu [\d.]+ %.*",
        said,
    )
    values = [float(value) for value in re.findall(r"([\d.]+) %", said)]
    assert values == sorted(values, reverse=True)
    assert "torch_float" not in said


def test_ranks_by_the_first_score_that_there_is() -> None:
    rows = join([_run(_without("coco_map"))]).rows
    assert scores.primary_metric(rows) == "accuracy.coco_map50"
    assert scores.primary_metric(join([_run()]).rows) == "accuracy.coco_map"


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [
        (-0.010, 0.004, "within"),
        (-0.011, 0.004, "unclear"),
        (-0.030, -0.011, "beyond"),
        (-0.030, -0.010, "unclear"),
    ],
)
def test_standing_needs_the_whole_interval(low: float, high: float, standing: str) -> None:
    rows = join([_run(_changed_by("onnx_int8", low, high))]).rows
    reference = scores.reference_of(rows, "accuracy.coco_map")
    row = next(row for row in rows if row.export == "onnx_int8")
    assert scores.standing(row, reference, "accuracy.coco_map", 0.01) == standing
    assert reference is not None
    assert scores.standing(reference, reference, "accuracy.coco_map", 0.01) == "reference"
