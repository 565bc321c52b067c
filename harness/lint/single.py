"""Rules that one manifest or one record can break on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from harness import stats
from harness.images import fingerprint
from harness.lint.rules import (
    ADDED_UP,
    CLAIMED,
    LARGEST_CUT,
    LEAST_IMAGES,
    LEAST_LIMIT,
    finding,
    merged,
)
from harness.records import Artifact, Finding, Measurement, RunRecord

INFERENCE = "latency.inference"
STAGES = ("latency.preprocess", "latency.inference_in_pipeline", "latency.postprocess")
END_TO_END = "latency.end_to_end"
LICENSED = 50
WHOLE = "all"
"""The split of a folder without splits: another folder has one of the same name."""


def lint_artifact(artifact: Artifact) -> tuple[Finding, ...]:
    """What a manifest says against itself."""
    return merged(_of_artifact(artifact))


def lint_record(
    record: RunRecord, artifact: Artifact | None, machine: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """What a record, with the manifest of what it measured and its machine, says against itself.

    Args:
        artifact: None where the manifest is not at hand; its rules are then not checked.
        machine: content of ``machine.json``; empty where it is not at hand.
    """
    if record.state not in ("ok", "tainted"):
        return ()
    found = [*_of_record(record)]
    if artifact is not None:
        found += [*_of_artifact(artifact), *_of_pair(record, artifact)]
    if record.cell.measure == "latency":
        found += _of_timing(record, record.board or machine)
    if record.cell.measure == "accuracy":
        found += _of_scores(record)
    return merged(found)


def row_name(record: RunRecord) -> str:
    """The record's row as people say it."""
    cell = record.cell
    threads = f", {cell.threads} thread{'' if cell.threads == 1 else 's'}"
    said = threads if cell.measure == "latency" else ""
    return f"{cell.model_name}: {cell.exporter} on {cell.runner}{said}"


def scored_on(record: RunRecord) -> Mapping[str, Any]:
    """Data set, split and images that the record's scores hold for; empty without scores."""
    for item in record.measurements:
        if item.metric.startswith("accuracy.") and "split" in item.conditions:
            return item.conditions
    return {}


def _of_artifact(artifact: Artifact) -> Iterator[Finding]:
    where, decoding, listed = artifact.id, artifact.decoding, artifact.calibration
    if decoding.score_threshold > LARGEST_CUT:
        yield finding(
            "score-cut",
            f"detections below a score of {decoding.score_threshold:g} are dropped before mAP",
            where,
        )
    if decoding.max_detections is not None and decoding.max_detections < LEAST_LIMIT:
        text = f"at most {decoding.max_detections} detections an image count"
        yield finding("detection-limit", text, where)
    if artifact.precision == "int8" and listed is None:
        yield finding(
            "calibration-unlisted",
            "the manifest lists no calibration images, so an overlap with the scored ones cannot"
            " be excluded",
            where,
        )
    if listed and listed.preprocessing not in (None, fingerprint(artifact.image)):
        text = "calibration images were prepared differently from those that are scored and timed"
        yield finding("preprocessing", text, where)


def _of_pair(record: RunRecord, artifact: Artifact) -> Iterator[Finding]:
    """A record against the manifest of what it measured."""
    if record.preprocessing not in (None, fingerprint(artifact.image)):
        text = f"{record.cell.measure} prepared images differently from what the manifest says"
        yield finding("preprocessing", text, row_name(record))
    listed, data = artifact.calibration, scored_on(record)
    overlap = _value(record, "accuracy.calibration_overlap")
    here = listed and (listed.dataset, listed.split) == (data.get("dataset"), data.get("split"))
    if here and not overlap and data["split"] != WHOLE:
        text = f"the ranges were chosen on {data['dataset']}:{data['split']}, the split scored"
        yield finding("calibration-split", text, row_name(record))


def _of_record(record: RunRecord) -> Iterator[Finding]:
    if record.git_dirty:
        text = f"measured at revision {record.git_revision[:12]} with uncommitted changes"
        yield finding("dirty-tree", text, row_name(record))
    if any(item.conditions.get("published") for item in record.measurements):
        yield finding("published-figure", "a figure is quoted, not measured", row_name(record))


def _of_scores(record: RunRecord) -> Iterator[Finding]:
    where, data = row_name(record), scored_on(record)
    overlap = _value(record, "accuracy.calibration_overlap")
    images = _value(record, "accuracy.images") or data.get("images")
    if overlap:
        text = f"{overlap:,.0f} of the scored images also chose the quantization ranges"
        yield finding("calibration-overlap", text, where)
    skipped = _value(record, "accuracy.skipped")
    if skipped:
        yield finding("skipped-images", f"{skipped:,.0f} bad images were left out", where)
    if str(data.get("split", "")).startswith("train"):
        text = f"the scored images are those of {data['dataset']}:{data['split']}"
        yield finding("training-split", text, where)
    if images and images < LEAST_IMAGES:
        text = f"scored on {images:,.0f} images, too few to tell small differences"
        yield finding("few-images", text, where)
    yield from _undecided(record)
    yield from _operating_point(record)


def _undecided(record: RunRecord) -> Iterator[Finding]:
    change = record.measurement("accuracy.coco_map_change")
    limits = change.conditions.get("ci95") if change else None
    if change is None or change.value is None or limits is None or abs(change.value) <= CLAIMED:
        return
    (low, high), images = limits, change.conditions["images"]
    if low < 0 < high:
        text = (
            f"a change of {100 * change.value:+.1f} points of mAP, but {images} images leave"
            f" everything from {100 * low:+.1f} to {100 * high:+.1f} possible"
        )
        yield finding("undecided-difference", text, row_name(record))


def _operating_point(record: RunRecord) -> Iterator[Finding]:
    """Precision, recall and F1 at one score."""
    data = scored_on(record)
    scored = f"{data.get('dataset')}:{data.get('split')}"
    for item in record.measurements:
        if item.metric.startswith("accuracy.") and item.conditions.get("chosen_on") == scored:
            text = f"the score for {item.metric} was chosen on {scored}, which it is reported for"
            yield finding("threshold-on-test", text, row_name(record))
    precision, recall = (_value(record, f"accuracy.{name}") for name in ("precision", "recall"))
    if precision == 1.0 and recall is not None and recall < 1.0:
        text = f"a precision of exactly 100 % at a recall of {100 * recall:.1f} %"
        yield finding("perfect-precision", text, row_name(record))


def _of_timing(record: RunRecord, machine: Mapping[str, Any]) -> Iterator[Finding]:
    where = row_name(record)
    timed = record.measurement(INFERENCE)
    if timed is not None:
        yield from _samples(record, timed)
    used = _value(record, "threads.used")
    if used is not None and used != record.cell.threads:
        text = f"{record.cell.threads} asked for, {used:g} used"
        yield finding("threads", text, where)
    if machine.get("emulated") or "TCG" in str(machine.get("hypervisor")):
        yield finding("emulated", "timed on an emulated processor", where)
    timings = [record.measurement(metric) for metric in (*STAGES, END_TO_END)]
    samples = [item.samples for item in timings if item is not None]
    if len(samples) == len(timings) and all(len(s) >= stats.needed(LICENSED) for s in samples):
        *stages, total = map(median, samples)
        parts = sum(stages)
        if abs(parts - total) > ADDED_UP * total:
            text = (
                f"the stages add up to {parts / 1e6:.2f} ms, end to end takes {total / 1e6:.2f} ms"
            )
            yield finding("stages-sum", text, where)


def _samples(record: RunRecord, timed: Measurement) -> Iterator[Finding]:
    where, count = row_name(record), len(timed.samples)
    if timed.conditions.get("tier") == "smoke":
        yield finding("smoke", "timed with tier smoke, which is for tests", where)
    elif count < stats.needed(LICENSED):
        text = f"{count} samples, a median needs {stats.needed(LICENSED)}"
        yield finding("few-samples", text, where)
    warm = record.measurement("latency.warmup_inference")
    if warm is None or not warm.samples:
        text = "no call was made to warm up before the timed ones"
        yield finding("no-warm-up", text, where)


def _value(record: RunRecord, metric: str) -> float | None:
    found = record.measurement(metric)
    return found.value if found else None
