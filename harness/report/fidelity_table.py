"""What compression changed against the float parent, whether the data set has labels or not."""

from __future__ import annotations

from harness.fidelity import COUNTS, FIGURES
from harness.records import RunRecord
from harness.report import measured
from harness.report.details import WHO, who
from harness.report.figures import count
from harness.report.join import Entry, Joined
from harness.report.tables import Column, Line, Table, Value, blank

CLASSES = 3


def fidelity_table(joined: Joined) -> Table:
    """One line for each accuracy cell that was held against its float parent."""
    columns = (
        *WHO,
        Column(key="map", label="Fidelity mAP", unit="%", numeric=True),
        Column(key="map50", label="Fidelity mAP@.5", unit="%", numeric=True),
        *(Column(key=name, label=name.capitalize(), numeric=True) for name in COUNTS),
        Column(key="images", label="Images changed", numeric=True),
        Column(key="classes", label="Classes that lost or gained most", wide=True),
    )
    entries = [entry for entry in joined.entries if entry.measured and _counts(entry.measured)]
    table = Table(
        key="fidelity",
        caption=(
            "Detections against those of the float model on the same images: no ground truth takes"
            " part, so this tells what compression changed, not whether it was right."
        ),
        columns=columns,
        lines=tuple(_line(entry, entry.measured) for entry in entries if entry.measured),
        empty="No row was held against a float model on the same images.",
    )
    return table.without(joined.constant)


def _line(entry: Entry, record: RunRecord) -> Line:
    return Line(
        values=(
            *who(entry),
            *(measured.score(record, metric) for metric in FIGURES.values()),
            *(_number(record, f"fidelity.{name}") for name in COUNTS),
            _number(record, "fidelity.changed_images"),
            Value(text=_classes(record)),
        )
    )


def _counts(record: RunRecord) -> bool:
    return record.measurement(f"fidelity.{COUNTS[0]}") is not None


def _number(record: RunRecord, metric: str) -> Value:
    found = record.measurement(metric)
    if found is None or found.value is None:
        return blank("not counted")
    note = ""
    if metric == "fidelity.changed_images":
        note = f"of {found.conditions.get('images', 0):,}"
    return Value(text=f"{found.value:,.0f}", sort=found.value, note=note)


def _classes(record: RunRecord) -> str:
    """``dog (3 lost, 1 new), cat (1 lost)``."""
    changed: dict[str, dict[str, int]] = {}
    for name in ("lost", "new"):
        found = record.measurement(f"fidelity.{name}")
        for label, number in (found.conditions.get("per_class", {}) if found else {}).items():
            changed.setdefault(label, {})[name] = number
    order = sorted(changed, key=lambda label: (-sum(changed[label].values()), label))
    said = [
        f"{label} ({', '.join(f'{number} {name}' for name, number in changed[label].items())})"
        for label in order[:CLASSES]
    ]
    left = len(order) - CLASSES
    return ", ".join([*said, *([count(left, "other")] if left > 0 else [])])
