"""The CSV: one line for each planned cell, raw units, for people who compute further."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec

from harness import stats
from harness.records import Options, RunRecord
from harness.report import scores
from harness.report.data import RunData
from harness.report.details import HEADS, MATCHES
from harness.report.join import Entry, Joined
from harness.report.timings import END_TO_END, INFERENCE, Timings

Field = str | int | float | bool | None
TIMED = {
    "inference": INFERENCE,
    "preprocess": "latency.preprocess",
    "postprocess": "latency.postprocess",
    "end_to_end": END_TO_END,
}
SINGLE = {
    "load_ns": "latency.load",
    "load_cold_ns": "latency.load_cold",
    "first_inference_ns": "latency.first",
    "threads_used": "threads.used",
    "memory_peak_bytes": "memory.peak_bytes",
    "memory_baseline_bytes": "memory.baseline_bytes",
    "calibration_overlap_images": "accuracy.calibration_overlap",
}
PARITY = (
    *(f"{head}.{kind}" for head in HEADS for kind in ("sqnr_db", "max_abs", "cosine")),
    *(f"detections.{kind}" for kind in MATCHES),
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(runs: Sequence[RunData], joined: Joined, timings: Timings) -> str:
    """All planned cells. Empty fields are figures that do not exist or are not licensed."""
    rows = [{**_identity(runs, entry), **_figures(entry, timings)} for entry in joined.entries]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["cell_id", "state"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _field(value) for key, value in row.items()})
    return stream.getvalue()


def _identity(runs: Sequence[RunData], entry: Entry) -> dict[str, Field]:
    cell, record, artifact = entry.cell, entry.record, entry.artifact
    run = runs[entry.run].run
    return {
        "machine": entry.machine,
        "run": str(run.get("name") or ""),
        "tier": str(run.get("tier") or ""),
        "cell_id": entry.cell_id,
        "state": entry.state,
        "error": record.error if record else None,
        "measure": cell.measure,
        "model": cell.model,
        "model_options": _options(cell.model_options),
        "weights": cell.weights,
        "exporter": cell.exporter,
        "export_options": _options(cell.export_options),
        "precision": artifact.precision if artifact else None,
        "runner": cell.runner,
        "target": cell.target,
        "threads": cell.threads,
        "batch": cell.batch,
        "dataset": cell.dataset,
        "artifact_sha256": record.artifact_sha256 if record else None,
        "artifact_size_bytes": record.artifact_size_bytes if record else None,
        "git_revision": record.git_revision if record else None,
        "git_dirty": record.git_dirty if record else None,
        "started_at": record.started_at if record else None,
        "elapsed_ns": record.elapsed_ns if record else None,
    }


def _figures(entry: Entry, timings: Timings) -> dict[str, Field]:
    record = entry.record
    found: dict[str, Field] = {}
    for metric in scores.METRICS:
        name = metric.replace("accuracy.", "")
        score = scores.score(record, metric)
        found[name] = score.value if score else None
        found[f"{name}_low"] = score.low if score else None
        found[f"{name}_high"] = score.high if score else None
        change = scores.score(record, f"{metric}_change")
        found[f"{name}_change"] = change.value if change else None
        found[f"{name}_change_low"] = change.low if change else None
        found[f"{name}_change_high"] = change.high if change else None
        found["images"] = (score and score.images) or found.get("images")
    for name, metric in TIMED.items():
        found |= _stage(name, record, metric, timings)
    found |= _spread(timings.summary(record))
    for name, metric in SINGLE.items():
        found[name] = _value(record, metric)
    for name in PARITY:
        found[f"parity_{name.replace('.', '_')}"] = _value(record, f"parity.{name}")
    return found


def _stage(name: str, record: RunRecord | None, metric: str, timings: Timings) -> dict[str, Field]:
    found = record.measurement(metric) if record else None
    pace = timings.median(record, metric)
    return {
        f"{name}_samples": len(found.samples) if found else None,
        f"{name}_p50_ns": pace.p50 if pace else None,
        f"{name}_p50_low_ns": pace.low if pace else None,
        f"{name}_p50_high_ns": pace.high if pace else None,
    }


def _spread(summary: stats.Summary | None) -> dict[str, Field]:
    return {
        "inference_p90_ns": summary.p90 if summary else None,
        "inference_p99_ns": summary.p99 if summary else None,
        "inference_cov": summary.cov if summary else None,
        "inference_outliers": summary.outliers if summary else None,
    }


def _value(record: RunRecord | None, metric: str) -> float | None:
    found = record.measurement(metric) if record else None
    return found.value if found else None


def _options(options: Options) -> str:
    return msgspec.json.encode(options, order="sorted").decode()


def _field(value: Field) -> Field:
    """A value as it is written: 12 digits, and no text that a spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.12g}")
    return value
