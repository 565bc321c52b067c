"""What ``A`` and ``B`` name: folders of runs, one cell, or a git revision within the results."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness import results
from harness.errors import BadInput
from harness.records import RunRecord
from harness.registry import ROOT
from harness.report.data import RunData, by_machine

LEAST_HEX = 7


@dataclass(frozen=True, kw_only=True)
class Side:
    """Runs of one side. ``cell_id`` is set where a single cell was named."""

    name: str
    runs: tuple[RunData, ...]
    folders: tuple[Path, ...]
    cell_id: str | None = None


def resolve(text: str, base: Path) -> Side:
    """Find what ``text`` names, below ``base`` where it is not a path itself.

    Raises:
        BadInput: it names nothing, or several cells.
        ResultsError: a file is damaged, edited or of a newer schema.
    """
    path = Path(text)
    if path.is_dir():
        return read_runs(text, results.find_runs([path]))
    if path.is_file():
        return _cell(text, path)
    cells = sorted(base.glob(f"*/*/cells/{_literal(text)}*.json"))
    exact = [found for found in cells if found.stem == text]
    if len(exact or cells) == 1:
        return _cell(text, (exact or cells)[0])
    if cells:
        named = ", ".join(str(found.relative_to(base)) for found in (exact or cells)[:3])
        raise BadInput(
            f"'{text}' is the name of {len(exact or cells)} cells ({named}): give a path"
        )
    return _revision(text, base)


def read_runs(
    name: str,
    folders: Sequence[Path],
    keep: Callable[[RunRecord], bool] = lambda record: True,
    *,
    every: bool = False,
    cell_id: str | None = None,
) -> Side:
    """Load ``folders``; runs without a record that ``keep`` keeps are left out.

    Raises:
        ResultsError: a file is damaged, edited or of a newer schema.
    """
    found: list[tuple[RunData, Path]] = []
    for folder in folders:
        machine, run, records, artifacts = results.load_run(folder, every=every)
        kept = [record for record in records if keep(record)]
        plain = msgspec.to_builtins(run)
        if every:  # a plan of today says nothing about an earlier revision
            plain["plan"] = ()
        if kept or not every:
            data = RunData(machine=machine, run=plain, records=kept, artifacts=artifacts)
            found += [(part, folder) for part in by_machine(data)]
    return Side(
        name=name,
        runs=tuple(data for data, _ in found),
        folders=tuple(folder for _, folder in found),
        cell_id=cell_id,
    )


def _cell(text: str, path: Path) -> Side:
    """The run that holds a cell, so that its accuracy stands beside its latency."""
    folder = path.parent.parent
    if path.suffix != ".json" or path.parent.name != "cells" or not (folder / "run.json").is_file():
        raise BadInput(
            f"{path} is not the record of a cell: give results/<machine>/<run>/cells/<cell>.json"
        )
    return read_runs(text, [folder], cell_id=path.stem)


def _revision(text: str, base: Path) -> Side:
    """Records that a git revision measured, in every run below ``base``."""
    prefix = _git_hash(text) or (text if _is_hex(text) else None)
    if prefix is None or not base.is_dir():
        raise BadInput(
            f"'{text}' is neither a folder, nor a cell of {base}, nor a git revision:"
            " give results/<machine>/<run>, a cell's record, a tag or a commit"
        )
    folders = results.find_runs([base])
    side = read_runs(text, folders, lambda r: r.git_revision.startswith(prefix), every=True)
    if not side.runs:
        raise BadInput(f"no record below {base} was measured at revision {prefix[:12]} ('{text}')")
    return side


def _git_hash(text: str) -> str | None:
    if text.startswith("-"):
        return None
    command = ["git", "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _is_hex(text: str) -> bool:
    return len(text) >= LEAST_HEX and all(letter in "0123456789abcdef" for letter in text)


def _literal(text: str) -> str:
    """``text`` without a meaning as a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)
