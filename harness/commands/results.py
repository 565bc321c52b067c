"""``detbench results add | import-published``: bring records in from elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import results as store
from harness.devices import published
from harness.errors import BadInput
from harness.merging import add


def results(options: argparse.Namespace) -> int:
    """Do what ``options.action`` says."""
    base = options.results or store.DEFAULT
    if options.action == "import-published":
        if len(options.paths) > 1:
            raise BadInput(
                "import-published reads one file, or the figures that came with detbench"
            )
        figures = published.read_file(*options.paths)
        new, there = published.store(figures, base)
        print(
            f"{new} published figures imported into {base / published.FOLDER}, {there} were there"
        )
        return 0
    if not options.paths:
        raise BadInput("results add needs a folder: what `python bundle.zip run` or a run wrote")
    if options.name and ("/" in options.name or options.name.startswith(".")):
        raise BadInput(f"--as '{options.name}' is no name of a run: give a word without '/'")
    for path in options.paths:
        for line in add(Path(path), base, name=options.name):
            print(line)
    return 0
