"""What ties a published table to its records: a comment with their names and one digest of all.

It stands behind a report's table of results and may be pasted with it, with fewer rows or columns.
`harness.verification` computes the table again from the records that it names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from harness.errors import ResultsError
from harness.records import RunRecord
from harness.report.data import RunData

_COMMENT = re.compile(r"<!-- detbench (\{.*\}) -->")


@dataclass(frozen=True, kw_only=True)
class Binding:
    """``runs`` are ``machine/run`` below a results folder, in the report's order."""

    runs: tuple[str, ...]
    records: int
    sha256: str
    title: str
    margin: float


def bind(runs: Sequence[RunData], *, title: str, margin: float) -> Binding:
    """The binding of a report over ``runs``."""
    return Binding(
        runs=tuple(dict.fromkeys(_address(run) for run in runs)),
        records=sum(len(run.records) for run in runs),
        sha256=digest(runs),
        title=title,
        margin=margin,
    )


def digest(runs: Sequence[RunData]) -> str:
    """One SHA-256 over the digests of all plans and records, in whichever order they come."""
    parts = []
    for run in runs:
        address = _address(run)
        parts.append(f"{address} {run.run.get('digest')}")
        for record in run.records:
            parts.append(f"{address} {record.cell_id} {record.digest or _figures(record)}")
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def comment(binding: Binding) -> str:
    """The binding as an HTML comment, which Markdown passes through."""
    text = json.dumps(asdict(binding), sort_keys=True, ensure_ascii=True)
    safe = text.replace("--", "-\\u002d").replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<!-- detbench {safe} -->"


def find(text: str, where: str) -> list[tuple[int, Binding]]:
    """All bindings of a page with the index of their line.

    Raises:
        ResultsError: a comment that is none of ours.
    """
    found = []
    for number, line in enumerate(text.splitlines()):
        if match := _COMMENT.search(line):
            found.append((number, _parse(match[1], f"{where}, line {number + 1}")))
    return found


def _parse(text: str, where: str) -> Binding:
    try:
        plain: dict[str, Any] = json.loads(text)
        plain["runs"] = tuple(plain["runs"])
        return Binding(**plain)
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(
            f"{where}: the comment that binds a table to its records is damaged ({error}):"
            " make the report again"
        ) from None


def _figures(record: RunRecord) -> str:
    """A digest of the figures of a record that has none itself; later fields do not count."""
    measured = [(m.metric, m.value, m.samples) for m in record.measurements]
    text = msgspec.json.encode((record.artifact_sha256, record.state, measured))
    return hashlib.sha256(text).hexdigest()


def _address(run: RunData) -> str:
    return f"{run.beside or run.machine_id}/{run.run.get('name') or 'unnamed'}"
