"""Figures of single rows as table values, each with its interval or the reason for its absence."""

from __future__ import annotations

from harness import stats
from harness.records import Measurement, RunRecord
from harness.report import scores
from harness.report.figures import (
    NS_PER_MS,
    megabytes,
    milliseconds,
    percent,
    signed_points,
    significant,
)
from harness.report.join import Entry, Row
from harness.report.tables import Value, blank
from harness.report.timings import COMPARED, Timings


def anchor(entry: Entry) -> str:
    """The address of the table line that accounts for a planned cell."""
    return f"cell-{entry.run + 1}-{entry.cell_id}"


def absent(entry: Entry | None) -> Value:
    """Why a row has no figure of this kind: not planned, or how its cell ended."""
    if entry is None:
        return blank("not planned")
    return Value(note=entry.state, href="" if entry.measured else f"#{anchor(entry)}")


def median(timings: Timings, record: RunRecord, metric: str) -> Value:
    """A licensed median in ms with its 95 % interval; else ``needs 11, has 5``."""
    found = record.measurement(metric)
    if found is None or not found.samples:
        return blank("not timed")
    pace = timings.median(record, metric)
    if pace is None:
        return blank(stats.license_text(len(found.samples), COMPARED) or "")
    note = f"{milliseconds(pace.low)} to {milliseconds(pace.high)}" if pace.low < pace.high else ""
    return Value(text=milliseconds(pace.p50), sort=pace.p50 / NS_PER_MS, note=note)


def tail(timings: Timings, record: RunRecord, p: int) -> Value:
    """p90 or p99 of inference in ms if the samples license it; else ``needs 64, has 20``."""
    summary = timings.summary(record)
    if summary is None:
        return blank("not timed")
    value = {90: summary.p90, 99: summary.p99}[p]
    if value is None:
        return blank(stats.license_text(summary.count, p) or "")
    return Value(text=milliseconds(value), sort=value / NS_PER_MS)


def once(record: RunRecord, metric: str) -> Value:
    """A time that is taken once a round, in ms, with the range over the rounds."""
    found = record.measurement(metric)
    if found is None or found.value is None:
        return blank("not timed")
    note = ""
    if len(found.samples) > 1:
        low, high = milliseconds(min(found.samples)), milliseconds(max(found.samples))
        note = f"{low} to {high}" if low != high else ""
    return Value(text=milliseconds(found.value), sort=found.value / NS_PER_MS, note=note)


def score(record: RunRecord, metric: str) -> Value:
    """A score in per cent with its 95 % interval."""
    found = scores.score(record, metric)
    if found is None:
        return blank("not scored")
    note = ""
    if found.low is not None and found.high is not None:
        note = f"{percent(found.low)} to {percent(found.high)}"
    return Value(text=percent(found.value), sort=100 * found.value, note=note)


def change(row: Row, reference: Row | None, metric: str) -> Value:
    """Points against the float reference with the 95 % interval."""
    if scores.same_accuracy_cell(row, reference):
        return Value(text="reference", sort=0.0)
    found = scores.change(row, reference, metric)
    if found is None:
        return blank("no reference" if reference is None else "not scored")
    note = "no interval"
    if found.low is not None and found.high is not None:
        note = f"{signed_points(found.low)} to {signed_points(found.high)}"
        note += "" if found.paired else ", not paired"
    return Value(
        text=signed_points(found.difference), sort=round(100 * found.difference, 6), note=note
    )


def leaked_images(record: RunRecord | None) -> int:
    """Scored images that also chose the quantization ranges; should be 0."""
    found = record.measurement("accuracy.calibration_overlap") if record else None
    return int(found.value or 0) if found else 0


def size(record: RunRecord | None) -> Value:
    """Bytes of the model files in MB."""
    if record is None or not record.artifact_size_bytes:
        return blank("no artifact")
    text = megabytes(record.artifact_size_bytes)
    return Value(text=text, sort=record.artifact_size_bytes / 1e6)


def peak_memory(record: RunRecord) -> Value:
    """The highest peak resident set of the rounds, each less its own baseline, in MB."""
    peak, base = (
        record.measurement("memory.peak_bytes"),
        record.measurement("memory.baseline_bytes"),
    )
    if peak is None or base is None:
        return blank("not measured")
    pairs = list(zip(_values(peak), _values(base), strict=False))
    if not pairs:
        return blank("not measured")
    most = max(high - low for high, low in pairs)
    return Value(text=megabytes(most), sort=most / 1e6)


def threads(row: Row) -> Value:
    """Threads asked for; marked where the runtime used another number."""
    used = row.latency.measurement("threads.used") if row.latency else None
    marks: tuple[str, ...] = ()
    if used is not None and used.value is not None and used.value != row.threads:
        marks = (f"used {used.value:g}",)
    return Value(text=str(row.threads), sort=row.threads, marks=marks)


def variation(timings: Timings, record: RunRecord) -> Value:
    """The coefficient of variation in per cent, marked above 2.5 %."""
    summary = timings.summary(record)
    if summary is None or summary.cov is None:
        return blank("needs 2 samples")
    marks = ("unstable",) if summary.unstable else ()
    return Value(text=significant(100 * summary.cov, 2), sort=100 * summary.cov, marks=marks)


def _values(measurement: Measurement) -> tuple[float, ...]:
    if measurement.samples:
        return measurement.samples
    return () if measurement.value is None else (measurement.value,)
