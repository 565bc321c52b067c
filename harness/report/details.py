"""Tables behind the overview: all scores, all latencies, parity. One line per measured cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import stats
from harness.records import RunRecord
from harness.report import measured, scores
from harness.report.figures import count, minus, significant
from harness.report.join import Entry, Joined
from harness.report.roofline import Roofs, share
from harness.report.tables import Column, Line, Table, Value, blank, text
from harness.report.timings import END_TO_END, INFERENCE, Timings

WHO = (
    Column(key="machine", label="Machine", wide=True),
    Column(key="model", label="Model", wide=True),
    Column(key="export", label="Export", pinned=True),
    Column(key="runner", label="Runner"),
)
HEADS = ("logits", "offsets")
MATCHES = ("matched", "lost", "new", "moved", "rescored")


def who(entry: Entry) -> tuple[Value, ...]:
    """The values of `WHO`."""
    return (text(entry.machine), text(entry.model), text(entry.export), text(entry.runner))


def accuracy_table(joined: Joined) -> Table:
    """All scores of each accuracy cell, and where its time went."""
    columns = (
        *WHO,
        Column(key="state", label="State"),
        Column(key="data", label="Data"),
        Column(key="images", label="Images", numeric=True),
        *(
            Column(key=metric.split(".")[1], label=label, unit="%", numeric=True)
            for metric, label in scores.METRICS.items()
        ),
        Column(key="network", label="In the network", unit="s", numeric=True),
        Column(key="outside", label="Outside it", unit="s", numeric=True),
    )
    entries = [e for e in joined.entries if e.cell.measure == "accuracy" and e.measured]
    table = Table(
        key="accuracy",
        caption=(
            "Every accuracy cell, with 95 % intervals from a bootstrap over images, and how its"
            " time divides between the network and what surrounds it."
        ),
        columns=columns,
        lines=tuple(_accuracy_line(entry, entry.record) for entry in entries if entry.record),
        empty="No accuracy cell was measured.",
    )
    return table.without(joined.constant)


def _accuracy_line(entry: Entry, record: RunRecord) -> Line:
    found = (scores.score(record, metric) for metric in scores.METRICS)
    images = next((score.images for score in found if score and score.images), None)
    return Line(
        key=measured.anchor(entry),
        cells=(entry.cell_id,),
        values=(
            *who(entry),
            _state(record),
            text(entry.cell.dataset),
            Value(text=f"{images:,}", sort=images) if images else blank("not said"),
            *(measured.score(record, metric) for metric in scores.METRICS),
            _seconds(record, inside=True),
            _seconds(record, inside=False),
        ),
    )


def _seconds(record: RunRecord, *, inside: bool) -> Value:
    """Time of scoring the data set that the network took, or everything else."""
    values = [
        found.value
        for found in record.measurements
        if found.metric.startswith("time.")
        and found.value is not None
        and (found.metric == "time.inference") is inside
    ]
    if not values:
        return blank("not timed")
    return Value(text=significant(sum(values) / 1e9), sort=sum(values) / 1e9)


def _state(record: RunRecord) -> Value:
    marks = ["tainted"] if record.state == "tainted" else []
    reasons = [record.error] if record.error else []
    if record.emulated:
        marks.append("emulated")
        reasons.append(f"computed on a processor that {record.emulated} emulates")
    leaked = measured.leaked_images(record)
    if leaked:
        marks.append("calibration leak")
        reasons.append(f"{count(leaked, 'scored image')} also chose its ranges")
    return Value(
        text="" if "tainted" in marks else record.state,
        sort=record.state,
        marks=tuple(marks),
        note="; ".join(reasons),
    )


def latency_table(joined: Joined, timings: Timings, roofs: Roofs) -> Table:
    """Every timing of each latency cell, with what licenses it."""
    columns = (
        *WHO,
        Column(key="threads", label="Threads", numeric=True),
        Column(key="state", label="State"),
        Column(key="load", label="Load", unit="ms", numeric=True),
        Column(key="cold", label="Cold load", unit="ms", numeric=True),
        Column(key="first", label="First inference", unit="ms", numeric=True),
        Column(key="warmup", label="Warm-up", unit="calls", numeric=True),
        Column(key="pre", label="Pre-processing p50", unit="ms", numeric=True),
        Column(key="p50", label="Inference p50", unit="ms", numeric=True),
        Column(key="p90", label="Inference p90", unit="ms", numeric=True),
        Column(key="p99", label="Inference p99", unit="ms", numeric=True),
        Column(key="post", label="Decode + NMS p50", unit="ms", numeric=True),
        Column(key="end", label="End to end p50", unit="ms", numeric=True),
        Column(key="roof", label="Of the roofline", unit="%", numeric=True),
        Column(key="samples", label="Samples", numeric=True),
        Column(key="cov", label="CoV", unit="%", numeric=True),
        Column(key="outliers", label="Outliers", numeric=True),
    )
    entries = [e for e in joined.entries if e.cell.measure == "latency" and e.measured]
    table = Table(
        key="latency",
        caption=(
            "Every latency cell. Load, first inference, warm-up and steady state are kept apart;"
            " small figures under a p50 are its 95 % interval, under a load the range of the"
            " rounds."
        ),
        columns=columns,
        lines=tuple(
            _latency_line(entry, entry.record, timings, roofs) for entry in entries if entry.record
        ),
        empty="No latency cell was measured.",
    )
    keys = [column.key for column in columns]
    empty = [
        key
        for key in ("p99", "roof")
        if not any(line.values[keys.index(key)].text for line in table.lines)
    ]
    return table.without([*joined.constant, *empty])


def _latency_line(entry: Entry, record: RunRecord, timings: Timings, roofs: Roofs) -> Line:
    return Line(
        key=measured.anchor(entry),
        cells=(entry.cell_id,),
        values=(
            *who(entry),
            _threads(entry, record),
            _state(record),
            measured.once(record, "latency.load"),
            measured.once(record, "latency.load_cold"),
            measured.once(record, "latency.first"),
            _warm_up(record),
            measured.median(timings, record, "latency.preprocess"),
            measured.median(timings, record, INFERENCE),
            measured.tail(timings, record, 90),
            measured.tail(timings, record, 99),
            measured.median(timings, record, "latency.postprocess"),
            measured.median(timings, record, END_TO_END),
            share(roofs.achieved(entry.run, record, entry.artifact, timings)),
            _samples(record),
            measured.variation(timings, record),
            _outliers(timings.summary(record)),
        ),
    )


def _threads(entry: Entry, record: RunRecord) -> Value:
    used = record.measurement("threads.used")
    known = used is not None and used.value is not None
    note = f"used {used.value:g}" if used is not None and known else "used: not known"
    marks = ("differs",) if used is not None and known and used.value != entry.cell.threads else ()
    return Value(text=str(entry.cell.threads), sort=entry.cell.threads, note=note, marks=marks)


def _warm_up(record: RunRecord) -> Value:
    found = record.measurement("latency.warmup_inference")
    if found is None:
        return blank("not recorded")
    return Value(text=f"{len(found.samples):,}", sort=len(found.samples))


def _samples(record: RunRecord) -> Value:
    found = record.measurement(INFERENCE)
    if found is None:
        return blank("none")
    rounds = found.conditions.get("rounds")
    note = ""
    if isinstance(rounds, list | tuple) and rounds:
        note = f"in {count(len(rounds), 'round')}"
    batch = found.conditions.get("batched_by")
    if isinstance(batch, int) and batch > 1:
        note += f", each the mean of {batch:,} calls"
    return Value(text=f"{len(found.samples):,}", sort=len(found.samples), note=note)


def _outliers(summary: stats.Summary | None) -> Value:
    if summary is None:
        return blank("not timed")
    marks = ("slow first",) if summary.slow_first else ()
    return Value(text=f"{summary.outliers:,}", sort=summary.outliers, marks=marks)


def parity_table(joined: Joined) -> Table:
    """What each artifact answers, held against the float network: the worst of its cells."""
    columns = (
        *WHO,
        *(
            Column(
                key=f"{head}_{key}", label=f"{head.capitalize()} {label}", unit=unit, numeric=True
            )
            for head in HEADS
            for key, label, unit in (
                ("sqnr_db", "SQNR", "dB"),
                ("max_abs", "max error", "absolute"),
                ("cosine", "cosine", "−1 to 1"),
            )
        ),
        *(Column(key=k, label=k.capitalize(), unit="boxes", numeric=True) for k in MATCHES),
        Column(key="checked", label="Checked in"),
    )
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in joined.entries:
        if entry.record and any(m.metric.startswith("parity.") for m in entry.record.measurements):
            key = (entry.machine, entry.model, entry.export, entry.runner)
            groups.setdefault(key, []).append(entry)
    table = Table(
        key="parity",
        caption=(
            "Outputs held against the float network on the same real images, before anything else"
            " is measured and again in every child process; the worst value is shown. Detections"
            " are counted: matched by class and overlap, lost, new, moved, rescored."
        ),
        columns=columns,
        lines=tuple(_parity_line(entries) for entries in groups.values()),
        empty="No outputs were compared.",
    )
    return table.without(joined.constant)


def _parity_line(entries: Sequence[Entry]) -> Line:
    values: dict[str, list[float]] = {}
    for entry in entries:
        for found in entry.record.measurements if entry.record else ():
            if found.metric.startswith("parity.") and found.value is not None:
                values.setdefault(found.metric.removeprefix("parity."), []).append(found.value)
    failed = next((e for e in entries if e.state == "parity-failed"), None)
    emulated = any(e.record and e.record.emulated for e in entries)
    return Line(
        cells=tuple(e.cell_id for e in entries if e.cell.measure == "parity" and e.measured),
        values=(
            *who(entries[0]),
            *(
                figure
                for head in HEADS
                for figure in (
                    _worst(values, f"{head}.sqnr_db", lowest=True, digits=1),
                    _worst(values, f"{head}.max_abs"),
                    _worst(values, f"{head}.cosine", lowest=True, digits=6),
                )
            ),
            *(
                _worst(values, f"detections.{key}", lowest=key == "matched", digits=0)
                for key in MATCHES
            ),
            Value(
                text=count(len(entries), "cell"),
                sort=len(entries),
                marks=(
                    *(("parity-failed",) if failed else ()),
                    *(("emulated",) if emulated else ()),
                ),
                note=_agreement(values, len(entries)),
            ),
        ),
    )


def _worst(
    values: Mapping[str, list[float]], key: str, *, lowest: bool = False, digits: int | None = None
) -> Value:
    found = values.get(key)
    if not found:
        return blank("not compared")
    worst = min(found) if lowest else max(found)
    shown = significant(worst) if digits is None else _decimals(worst, digits)
    return Value(text=shown, sort=worst)


def _decimals(value: float, places: int) -> str:
    """``value`` with a fixed number of decimals; infinities as signs."""
    return significant(value) if abs(value) == float("inf") else minus(f"{value:.{places}f}")


def _agreement(values: Mapping[str, list[float]], cells: int) -> str:
    """Whether the children of one artifact answered alike."""
    if cells == 1:
        return ""
    same = all(max(found) == min(found) for found in values.values())
    return "all equal" if same else "they differ"
