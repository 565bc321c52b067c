"""Reports from records: one HTML page that needs nothing else, Markdown to paste, CSV to compute.

The same records give the same bytes, in whichever order they come.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.cache import write_atomic
from harness.devices.names import Devices
from harness.devices.published import Published
from harness.report.data import ReportPaths, RunData
from harness.report.looking import with_pictures
from harness.report.page import Page, page
from harness.report.render import html, markdown
from harness.report.spreadsheet import csv_text
from harness.report.verdict import MARGIN

__all__ = ["ReportPaths", "RunData", "build_report"]


MOST_BYTES = 5_000_000
"""The HTML page takes fewer pictures rather than be larger; without pictures it is what it is."""
FEWER = (4, 2, 1, 0)
"""Pictures of each sort and group, when all of them are too many."""


def build_report(
    runs: Sequence[RunData],
    out: Path,
    *,
    title: str,
    margin: float = MARGIN,
    pictures: bool = True,
    devices: Devices | None = None,
    published: Sequence[Published] = (),
) -> ReportPaths:
    """Write ``report.html``, ``report.md`` and ``report.csv`` into the folder ``out``.

    Args:
        pictures: whether the page may hold pictures of the data sets, shrunk.
        margin: loss of mAP against the float reference, 0..1, that a recommended row may have.
        devices: names and prices of the machines.
        published: figures of others, for a table of their own.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
        ResultsError: a plan holds something that is not a cell, or ``out`` cannot be written.
    """
    with _no_collector():
        content, joined, timings = page(
            runs,
            title=title,
            margin=margin,
            pictures=pictures,
            devices=devices,
            published=published,
        )
        texts = {
            "report.html": _small(content),
            "report.md": markdown(content),
            "report.csv": csv_text(runs, joined, timings),
        }
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return ReportPaths(html=out / "report.html", markdown=out / "report.md", csv=out / "report.csv")


@contextmanager
def _no_collector() -> Iterator[None]:
    """A report's objects live until it is written: looking for garbage among them is an eighth of
    the time that 2,000 records take.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _small(content: Page) -> str:
    """The page with as many pictures as `MOST_BYTES` allows."""
    text = html(content)
    for most in FEWER:
        pictures = any(one.mistakes or one.changed for one in content.looking.looks)
        if len(text.encode()) <= MOST_BYTES or not pictures:
            break
        text = html(replace(content, looking=with_pictures(content.looking, most)))
    return text
