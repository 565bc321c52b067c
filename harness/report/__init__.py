"""Reports from records: one HTML page that needs nothing else, Markdown to paste, CSV to compute.

The same records give the same bytes, in whichever order they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cache import write_atomic
from harness.report.data import ReportPaths, RunData
from harness.report.page import page
from harness.report.render import html, markdown
from harness.report.spreadsheet import csv_text
from harness.report.verdict import MARGIN

__all__ = ["ReportPaths", "RunData", "build_report"]


def build_report(
    runs: Sequence[RunData], out: Path, *, title: str, margin: float = MARGIN
) -> ReportPaths:
    """Write ``report.html``, ``report.md`` and ``report.csv`` into the folder ``out``.

    Args:
        margin: loss of mAP against the float reference, 0..1, that a recommended row may have.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
        ResultsError: a plan holds something that is not a cell, or ``out`` cannot be written.
    """
    content, joined, timings = page(runs, title=title, margin=margin)
    texts = {
        "report.html": html(content),
        "report.md": markdown(content),
        "report.csv": csv_text(runs, joined, timings),
    }
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return ReportPaths(html=out / "report.html", markdown=out / "report.md", csv=out / "report.csv")
