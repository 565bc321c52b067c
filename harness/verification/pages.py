"""A published page against the records that it is bound to, figure by figure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from harness import results
from harness.devices import published
from harness.devices.names import Devices, base_of, read_devices
from harness.devices.published import Published
from harness.errors import ResultsError
from harness.report.binding import Binding, digest, find
from harness.report.data import RunData, by_machine
from harness.report.page import Page, page
from harness.report.render import html, markdown, markdown_table
from harness.report.tables import Table
from harness.verification.figures import Checked, Problem

IDENTITY = ("machine", "model", "export", "runner", "threads")
"""Columns that say which row it is; all others are figures."""
_DRAWING = re.compile(r"<svg.*?</svg>", re.DOTALL)
_LOOKING = re.compile(r'<section id="looking".*?</section>', re.DOTALL)
"""Holds pictures of the data set, which need not be at hand where a page is verified."""
_CELLS = re.compile(r"(?<!\\)\|")


def check_page(path: Path, bases: Sequence[Path]) -> Checked:
    """Check every bound table of a Markdown file, or a whole report.

    Args:
        bases: results folders to look for the records in, beside those around the page itself.

    Raises:
        ResultsError: unreadable, nothing in it is bound, or its records are not there.
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{path} cannot be read ({error}): give a report or a results folder"
        ) from None
    bindings = find(text, str(path))
    if not bindings:
        raise ResultsError(
            f"{path} holds no figure that is bound to records: paste a table of report.md together"
            " with the comment behind it"
        )
    checked = Checked(0, [], [])
    for number, binding in bindings:
        folders = _folders(binding, path, bases)
        runs = load(folders)
        if digest(runs) != binding.sha256:
            what = (
                f"is bound to {binding.records} records with digest {binding.sha256[:12]}…,"
                f" {', '.join(map(str, folders))} give {digest(runs)[:12]}…"
            )
            checked.problems.append(Problem(f"{path}, line {number + 1}", what))
        devices, figures = surroundings(folders)
        content, _, _ = page(
            runs,
            title=binding.title,
            margin=binding.margin,
            pictures=False,
            devices=devices,
            published=figures,
        )
        if path.suffix == ".html":
            count, problems = _whole(path, text, html(content))
        else:
            count, problems = _table(path, text.splitlines(), number, content.results)
            if _is_report(text, content):
                problems += _whole(path, text, markdown(content), tables=False)[1]
        checked.problems.extend(problems)
        checked = checked._replace(figures=checked.figures + count)
    return checked


def load(folders: Sequence[Path]) -> list[RunData]:
    """Runs as a report reads them. Raises ResultsError."""
    found = []
    for folder in folders:
        machine, run, records, artifacts = results.load_run(folder)
        plain = msgspec.to_builtins(run)
        data = RunData(
            machine=machine, run=plain, records=records, artifacts=artifacts, folder=folder
        )
        found += by_machine(data)
    return found


def surroundings(folders: Sequence[Path]) -> tuple[Devices, list[Published]]:
    """Names and prices of machines, and published figures, beside the runs of a report."""
    base = base_of(folders)
    if base is None:
        return Devices({}), []
    return read_devices(base), published.load(base)


def _folders(binding: Binding, path: Path, bases: Sequence[Path]) -> list[Path]:
    around = [path.resolve().parents[i] for i in range(min(4, len(path.resolve().parents)))]
    places = [*bases, *around, *(folder / "results" for folder in around), results.DEFAULT]
    found = []
    for address in binding.runs:
        there = [base / address for base in places if (base / address / "run.json").is_file()]
        if not there:
            raise ResultsError(
                f"{path} is bound to the run {address}, which is not below"
                f" {', '.join(map(str, places[:3]))}: say where it is with --results"
            )
        found.append(there[0])
    return found


def _is_report(text: str, content: Page) -> bool:
    return text.startswith(f"# {content.title}\n")


def _whole(path: Path, text: str, again: str, *, tables: bool = True) -> tuple[int, list[Problem]]:
    """Line by line; charts, drawn by a library whose versions differ, and pictures do not count."""
    said, made = (_lines(part) for part in (text, again))
    if not tables:
        said, made = (
            [one for one in lines if not one[1].startswith("|")] for lines in (said, made)
        )
    problems = []
    for (number, one), (_, other) in zip(said, made, strict=False):
        if one != other:
            what = f"says {_short(one, other)}, the records give {_short(other, one)}"
            problems.append(Problem(f"{path}, line {number}", what))
    if len(said) != len(made):
        what = f"has {len(said)} lines, the records give {len(made)}"
        problems.append(Problem(str(path), what))
    return len(made), problems


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines that hold something, with their numbers; charts and pictures cut out."""
    for part in (_LOOKING, _DRAWING):
        text = part.sub(lambda match: "\n" * match[0].count("\n"), text)
    numbered = enumerate(text.splitlines(), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def _short(text: str, other: str) -> str:
    """The part of a line around where it leaves the other."""
    same = next(
        (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(other)
    )
    start = max(0, same - 30)
    return f"'{text[start : same + 40].strip()}'"


def _table(path: Path, lines: Sequence[str], end: int, content: Table) -> tuple[int, list[Problem]]:
    """The table above line ``end``, each row by what it identifies itself as."""
    start, stop = _span(lines, end)
    if stop - start < 3:
        where = f"{path}, line {end + 1}"
        return 0, [Problem(where, "no table stands above the comment that binds it")]
    truth = str(markdown_table(content)).splitlines()
    columns = _cells(truth[0])
    keys = dict(zip(columns, (column.key for column in content.columns), strict=True))
    rows = [dict(zip(columns, _cells(line), strict=True)) for line in truth[2:]]
    heads = _cells(lines[start])
    problems = [
        Problem(f"{path}, line {start + 1}", f"column '{head}' is no figure of the report")
        for head in heads
        if head not in keys
    ]
    heads = [head for head in heads if head in keys]
    figures = 0
    for number in range(start + 2, stop):
        row = dict(zip(_cells(lines[start]), _cells(lines[number]), strict=False))
        found = list(_row(row, rows, heads, keys))
        figures += len(heads)
        problems += [Problem(f"{path}, line {number + 1}", what) for what in found]
    return figures, problems


def _row(
    row: Mapping[str, str],
    rows: Sequence[Mapping[str, str]],
    heads: Sequence[str],
    keys: Mapping[str, str],
) -> Iterator[str]:
    """What a published row says other than the records do."""
    named = [head for head in heads if keys[head] in IDENTITY]
    name = ", ".join(row.get(head, "") for head in named)
    alike = [one for one in rows if all(one[head] == row.get(head) for head in named)]
    if not alike:
        yield f"no row '{name}' follows from the records"
        return
    answers = [[h for h in heads if one[h] != row.get(h)] for one in alike]
    wrong, best = min(zip(answers, alike, strict=True), key=lambda pair: len(pair[0]))
    for head in wrong:
        yield f"{name}: {head} says '{row.get(head, '')}', the records give '{best[head]}'"


def _span(lines: Sequence[str], end: int) -> tuple[int, int]:
    """Lines of the last table before line ``end``."""
    stop = end
    while stop > 0 and not lines[stop - 1].lstrip().startswith("|"):
        stop -= 1
        if stop < end and lines[stop].strip():
            return end, end  # something else stands between
    start = stop
    while start > 0 and lines[start - 1].lstrip().startswith("|"):
        start -= 1
    return start, stop


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in _CELLS.split(line.strip().strip("|"))]
