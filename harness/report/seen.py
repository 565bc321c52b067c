"""The evidence files behind the rows of a report: what was found in every image, judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import detections, mistakes
from harness.errors import ResultsError
from harness.fidelity import COUNTS
from harness.interfaces import Truth
from harness.report.charts import Group
from harness.report.data import RunData
from harness.report.join import Row


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One row's detections. ``judged`` is empty where the data set has no ground truth."""

    row: Row
    found: detections.Found
    labels: tuple[str, ...]
    shown_score: float
    judged: tuple[mistakes.Mistakes, ...]

    @property
    def truths(self) -> Sequence[Truth]:
        """Ground truth of every image; empty where there is none."""
        return self.found.truths or ()


def see(runs: Sequence[RunData], row: Row) -> Seen | None:
    """Read and judge what a row found; None where its run holds no such file.

    Raises:
        ResultsError: the file is damaged.
    """
    folder, record, artifact = runs[row.run].folder, row.accuracy, row.artifact
    if folder is None or record is None or artifact is None:
        return None
    path = folder / "detections" / f"{record.cell_id}.npz"
    if not path.is_file():
        return None
    found = detections.load(path)
    shown = artifact.decoding.shown_score
    pairs = zip(found.truths or (), found.detections, strict=found.truths is not None)
    return Seen(
        row=row,
        found=found,
        labels=artifact.labels,
        shown_score=shown,
        judged=tuple(mistakes.judge(truth, one, shown) for truth, one in pairs),
    )


def parent_row(group: Group) -> Row | None:
    """The float row that others of the group are held against, scored or not."""
    rows = [row for row in group.rows if row.accuracy and row.artifact]
    floats = [row for row in rows if row.artifact and row.artifact.precision == "float32"]
    own = [row for row in floats if not _is_compared(row)]
    return group.reference or next(iter(own or floats), None)


def subject_row(group: Group, choice: Row | None, parent: Row | None) -> Row | None:
    """The row to look at: the recommended one, else the first compressed one, else the parent."""
    if choice is not None and choice.accuracy is not None:
        return choice
    rows = [row for row in group.rows if row.accuracy and row.artifact]
    compressed = [row for row in rows if row.artifact and row.artifact.precision != "float32"]
    return next(iter(compressed or rows), parent)


def _is_compared(row: Row) -> bool:
    record = row.accuracy
    return record is not None and record.measurement(f"fidelity.{COUNTS[0]}") is not None


def pair(
    runs: Sequence[RunData], group: Group, choice: Row | None
) -> tuple[Seen | None, Seen | None, str]:
    """Subject and float parent of a group, and why there is no subject; no parent of itself."""
    parent = parent_row(group)
    subject = subject_row(group, choice, parent)
    try:
        seen = see(runs, subject) if subject else None
        other = see(runs, parent) if parent and subject and not _same(parent, subject) else None
    except ResultsError as error:
        return None, None, str(error)
    if seen is None:
        return None, None, "No detections came with the records, so nothing can be shown."
    if other is not None and other.found.names != seen.found.names:
        other = None
    return seen, other, ""


def _same(one: Row, other: Row) -> bool:
    return one.accuracy is other.accuracy
