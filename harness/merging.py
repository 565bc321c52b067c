"""Results of one place into the results of another: `results add`. Nothing is overwritten.

Rules, by run: a run that is not there is copied. A run of the same machine and name is merged where
both were measured alike (tier, rounds, images, noise floor); records that are equal are left, new
ones are added, and the plan grows by them. The same cell with another content is a collision: the
run has to be added under another name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from harness.cache import write_atomic
from harness.errors import ResultsError
from harness.records import RunRecord
from harness.results import (
    Run,
    RunFolder,
    find_runs,
    load_run,
    merge_plans,
    read_machine,
    read_sealed,
)

ALIKE = ("tier", "rounds", "seed", "images", "noise_floor")
"""Facts of a run that hold for each of its records, so that runs which differ stay apart."""
FOLDERS = ("cells", "artifacts", "detections", "rounds", "logs")


def add(source: Path, base: Path, *, name: str | None = None) -> Iterator[str]:
    """Add every run below ``source``; answers a sentence each.

    Everything is read and checked before anything is written.

    Args:
        name: call the runs so here; None keeps their names.

    Raises:
        ResultsError: nothing there; a damaged or edited file; a collision. Nothing was written.
    """
    runs = find_runs([source])
    if name is not None and len({folder.name for folder in runs}) > 1:
        raise ResultsError(f"{source} holds several runs: add them one by one with --as")
    jobs = []
    for folder in runs:
        _, run, records, _ = load_run(folder, every=True)
        machines = {record.machine_id for record in records} or {folder.parent.name}
        if len(machines) > 1:
            raise ResultsError(
                f"{folder} holds records of {', '.join(sorted(machines))}: not a run"
            )
        if not records:
            raise ResultsError(f"{folder} holds no record: there is nothing to add")
        target = RunFolder(base, machines.pop(), name or folder.name)
        if target.path.resolve() == folder.resolve():
            raise ResultsError(f"{folder} is there already: give what another place measured")
        new = list(_new_records(folder, target, run, records))
        jobs.append((folder, target, run, records, new))
    for folder, target, run, records, new in jobs:
        yield _carry_out(folder, target, run, len(records), new)


def _new_records(
    folder: Path, target: RunFolder, run: Run, records: Iterable[RunRecord]
) -> Iterator[RunRecord]:
    """Records that are not there yet. Raises ResultsError where one is there and differs."""
    there = target.read_run()
    if there is not None:
        differing = [field for field in ALIKE if getattr(there, field) != getattr(run, field)]
        if differing:
            said = "; ".join(f"{f} {getattr(there, f)} and {getattr(run, f)}" for f in differing)
            raise ResultsError(
                f"{target.path} and {folder} were measured differently ({said}):"
                f" add it under another name, with --as {folder.name}-2"
            )
        mine_asked = {msgspec.json.encode(planned.cell): planned.id for planned in there.plan}
        for planned in run.plan:
            other_id = mine_asked.get(msgspec.json.encode(planned.cell), planned.id)
            if other_id != planned.id:
                raise ResultsError(
                    f"{folder} has {planned.id} where {target.path} has {other_id}: the same cell"
                    " by other code or versions, so add it under another name, with --as"
                    f" {folder.name}-2"
                )
    for record in records:
        path = target.cell_path(record.cell_id)
        if not path.is_file():
            yield record
            continue
        mine = read_sealed(path, RunRecord)
        if mine == record:
            continue
        artifacts = (mine.artifact_sha256 or "none")[:12], (record.artifact_sha256 or "none")[:12]
        other = (
            f", of artifact {artifacts[0]} and {artifacts[1]}" if len(set(artifacts)) > 1 else ""
        )
        raise ResultsError(
            f"{path} and {folder / 'cells' / path.name} are different records of one cell"
            f"{other}: add the run under another name, with --as {folder.name}-2"
        )


def _carry_out(folder: Path, target: RunFolder, run: Run, total: int, new: list[RunRecord]) -> str:
    """Copy what is new, the plan last: a run whose plan is there is whole."""
    there = target.read_run()
    said = _machine(folder.parent / "machine.json", target.machine_folder / "machine.json")
    for name in FOLDERS:
        for path in sorted((folder / name).glob("*")):
            to = target.path / name / path.name
            if path.is_file() and not to.exists():
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
    plan = merge_plans(there.plan, run.plan) if there else run.plan
    whole = msgspec.structs.replace(there or run, name=target.path.name, plan=plan, digest=None)
    if there is None or new:
        target.write_run(whole)
    return f"{target.path}: {len(new)} of {total} records added{said}"


def _machine(source: Path, target: Path) -> str:
    """Copy the machine's facts where there are none; say where others are kept."""
    if not source.is_file():
        return ""
    if not target.is_file():
        write_atomic(target, source.read_bytes())
        return ""
    mine, other = read_machine(target), read_machine(source)
    differing = sorted(key for key in {*mine, *other} if mine.get(key) != other.get(key))
    return f"; kept {target} though {', '.join(differing)} differ" if differing else ""
