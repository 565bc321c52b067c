"""``detbench report``: pages from records."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from harness import results


def report(options: argparse.Namespace) -> int:
    """Read every run below the folders given and write one report over all of them."""
    folders = results.find_runs(options.results or [results.DEFAULT])
    output = options.output or (folders[0] if len(folders) == 1 else results.DEFAULT)
    page = write(folders, output, options.title, pictures=not options.no_pictures)
    print(json.dumps({"report": str(page)}) if options.json else f"report: {page}")
    return 0


def write(folders: Sequence[Path], output: Path, title: str, *, pictures: bool) -> Path:
    """Write ``report.html``, ``.md`` and ``.csv`` to ``output``; answers the page's path."""
    from harness.report import build_report
    from harness.verification.pages import load, surroundings

    devices, published = surroundings(folders)
    return build_report(
        load(folders),
        output,
        title=title,
        pictures=pictures,
        devices=devices,
        published=published,
    ).html
