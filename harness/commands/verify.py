"""``detbench verify``: compute every published figure again and fail on any that differs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness import cli, results
from harness.errors import ResultsError
from harness.verification.figures import Checked, check_run

PAGES = (".md", ".html")


def verify(options: argparse.Namespace) -> int:
    """Check folders of results and published pages; exit 1 where something differs."""
    bases = [options.results or results.DEFAULT]
    checked = [_check(path, bases) for path in options.targets or bases]
    problems = [problem for one in checked for problem in one.problems]
    unchecked = [line for one in checked for line in one.unchecked]
    figures = sum(one.figures for one in checked)
    if options.json:
        found = [{"where": where, "what": what} for where, what in problems]
        print(json.dumps({"figures": figures, "problems": found, "unchecked": unchecked}, indent=1))
    else:
        for line in unchecked:
            print(f"not checked: {line}")
        for where, what in problems:
            print(what if what.startswith(where) else f"{where}: {what}")
        print(f"{figures:,} figures computed again, {len(problems)} differ")
    return cli.FAILED if problems else 0


def _check(path: Path, bases: list[Path]) -> Checked:
    if path.is_dir():
        return _folder(path, bases)
    if path.suffix not in PAGES:
        raise ResultsError(f"{path} is neither a folder of results nor a {' or '.join(PAGES)} page")
    from harness.verification.pages import check_page

    return check_page(path, bases)


def _folder(path: Path, bases: list[Path]) -> Checked:
    """All runs below a folder, then the reports that lie with them."""
    runs = [check_run(folder) for folder in results.find_runs([path])]
    if any(run.problems for run in runs):  # a report over damaged records says nothing more
        return _joined(runs)
    reports = [item for kind in PAGES for item in sorted(path.rglob(f"report{kind}"))]
    return _joined([*runs, *(_check(report, bases) for report in reports)])


def _joined(parts: list[Checked]) -> Checked:
    return Checked(
        sum(part.figures for part in parts),
        [problem for part in parts for problem in part.problems],
        [line for part in parts for line in part.unchecked],
    )
