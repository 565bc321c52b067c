"""The part of a run that has the machine to itself: the noise floor, rounds of cells, long runs.

Cells of one model take turns: in each round all of them are alive, one at work at a time
(`harness.turns`). The A/A control comes first, as several processes of one cell that take turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from harness import machine, machine_speed
from harness.children import Child
from harness.plan import PlannedCell
from harness.progress import Progress
from harness.records import Round, State
from harness.rounds import Floors, floor_rounds, floors
from harness.tasks import ChildResult, MeasureTask
from harness.timing import TIERS, round_order
from harness.turns import MOST_TOGETHER, Player, has_room, rotate

if TYPE_CHECKING:
    from harness.execute import Execution

MEASURED: frozenset[State] = frozenset({"ok", "tainted"})


class Turn(NamedTuple):
    """One round of a cell: its name and number, and its place among so many of that number."""

    planned: PlannedCell
    name: str
    number: int
    place: int
    of: int


class Timed:
    """Times the open cells of an execution."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._floors = Floors(None, None)

    def latency(self, progress: Progress) -> None:
        """The A/A control first, for the noise floor; then all cells in shuffled rounds."""
        cells = self._execution.open("latency")
        if not cells:
            return
        controls = (self._control(cell, progress) for cell in sorted(cells, key=self._start_ns))
        self._floors = next((found for found in controls if found), Floors(None, None))
        self._write_run(cells)
        latency = self._execution.matrix.latency
        results: dict[str, list[ChildResult]] = {planned.id: [] for planned in cells}
        groups = _groups(cells)
        for number in range(latency.rounds):
            for index in round_order(len(groups), number, latency.seed):
                self._round(groups[index], number, results, progress)

    def alone(self, progress: Progress) -> None:
        """Profiles and sustained runs, one after the other: none shares the machine or a timing."""
        execution = self._execution
        cells = [*execution.open("profile"), *execution.open("sustain")]
        for place, planned in enumerate(cells):
            with progress.step(planned.title):
                turn = Turn(planned, f"{planned.id}.r0", 0, place, len(cells))
                execution.finish(planned, self._together([turn]))

    def _round(
        self,
        group: Sequence[PlannedCell],
        number: int,
        results: dict[str, list[ChildResult]],
        progress: Progress,
    ) -> None:
        """One round of cells that take turns; cells that failed before are left out."""
        latency = self._execution.matrix.latency
        fine = [
            planned
            for planned in group
            if all(result.state in MEASURED for result in results[planned.id])
        ]
        turns = [
            Turn(fine[index], f"{fine[index].id}.r{number}", number, place, len(fine))
            for place, index in enumerate(round_order(len(fine), number, latency.seed))
        ]
        if not turns:
            return
        title = f"latency, {len(turns)} cells by turns"
        if len(turns) == 1:
            title = turns[0].planned.title
        with progress.step(f"{title}, round {number + 1} of {latency.rounds}"):
            found = self._together(turns)
        for turn, result in zip(turns, found, strict=True):
            sink = results[turn.planned.id]
            sink.append(result)
            if number == latency.rounds - 1 or result.state not in MEASURED:
                self._execution.finish(turn.planned, sink)

    def _control(self, planned: PlannedCell, progress: Progress) -> Floors | None:
        """Time processes of one cell by turns, as if each were another cell (A/A)."""
        latency = self._execution.matrix.latency
        count = floor_rounds(latency.rounds, trial=TIERS[latency.tier].trial)
        turns = [
            Turn(planned, f"{planned.id}.aa{number}", 1 + number, number, count)
            for number in range(count)
        ]
        with progress.step(f"noise floor, {planned.title}, {count} times by turns"):
            found = self._together(turns)
        if any(result.state not in MEASURED for result in found):
            return None
        return floors(found, latency.rounds)

    def _write_run(self, cells: Sequence[PlannedCell]) -> None:
        """Keep what holds for all cells: the floor, and how fast the machine is at all."""
        folder = self._execution.folder
        run = folder.read_run()
        if run is None:
            return
        known = {speed.threads for speed in run.speeds}
        asked = {planned.cell.threads for planned in cells} - known
        trial = TIERS[self._execution.matrix.latency.tier].trial
        speeds = () if trial else machine_speed.measure(asked)
        run = msgspec.structs.replace(
            run, noise_floor=self._floors.apart, speeds=(*run.speeds, *speeds)
        )
        folder.write_run(run)

    def _start_ns(self, planned: PlannedCell) -> int:
        """What its accuracy cell took: the A/A control is the cell that costs least and works."""
        scored = self._execution.scored(planned)
        works = scored is not None and scored.state in MEASURED
        return scored.elapsed_ns or sys.maxsize if scored and works else sys.maxsize

    def _together(self, turns: Sequence[Turn]) -> list[ChildResult]:
        """A round of each; one that an interrupted run finished is kept.

        Where memory has no room for all at once, the rest follows among itself.
        """
        folder = self._execution.folder
        found = {turn.name: folder.read_round(turn.name) for turn in turns}
        todo = [t for t in turns if not (kept := found[t.name]) or kept.state not in MEASURED]
        while todo:
            results = self._seen(todo)
            for turn, result in zip(todo, results, strict=False):
                folder.write_round(turn.name, result)
                found[turn.name] = result
            todo = todo[len(results) :]
        return [result for result in found.values() if result is not None]

    def _seen(self, turns: Sequence[Turn]) -> list[ChildResult]:
        """Run children by turns, with a look at the machine before and after."""
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        tasks = [(self._task(turn), turn.name) for turn in turns]
        before, own, begun = machine.state(), time.process_time_ns(), time.perf_counter_ns()
        results = self._execution.children(tasks)
        own, elapsed = time.process_time_ns() - own, time.perf_counter_ns() - begun
        after, count = machine.state(), len(results)
        reason = machine.taint(before, after)
        found = []
        for turn, result in zip(turns, results, strict=False):
            seen = Round(
                started_at=started,
                place=turn.place,
                of=turn.of,
                elapsed_ns=elapsed // count,
                supervisor_cpu_ns=own // count,
                before=msgspec.to_builtins(before),
                after=msgspec.to_builtins(after),
                tainted=reason,
                together=count,
                turns_floor=self._floors.turns,
            )
            result = msgspec.structs.replace(result, round=seen, elapsed_ns=elapsed // count)
            if reason and result.state == "ok":
                result = msgspec.structs.replace(result, state="tainted", error=reason)
            found.append(result)
        return found

    def _task(self, turn: Turn) -> MeasureTask:
        execution = self._execution
        scored = execution.scored(turn.planned)
        path: Path | None = execution.folder.detections_path(scored.cell_id) if scored else None
        there = str(path) if path and path.is_file() else None
        return execution.task(turn.planned, number=turn.number, scored=there)


def run_together(
    tasks: Sequence[tuple[MeasureTask, str]], *, folder: Path, timeout_s: float, seed: int
) -> list[ChildResult]:
    """Run the first tasks by turns, as many as memory has room for; at least one.

    Each child prepares itself alone, times by turns with the others, and does the rest alone.
    """
    players: list[Player] = []
    children: list[Child] = []
    try:
        for task, name in tasks:
            if players and not has_room(players):
                break

            def start(descriptor: int, variables: dict[str, str]) -> Child:
                child = Child(
                    task,  # noqa: B023  # called at once
                    folder=folder,
                    name=name,  # noqa: B023  # called at once
                    timeout_s=timeout_s,
                    inherited=(descriptor,),
                    more=variables,
                )
                children.append(child)
                return child

            players.append(Player(start, timeout_s))
        rotate(players, seed)
        found = []
        for player, child in zip(players, children, strict=True):
            player.release()
            found.append(child.late() if player.state == "late" else child.end())
        return found
    except BaseException:
        for child in children:
            child.kill()
        raise


def _groups(cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Cells that take turns: all of a model stay together, since those are compared."""
    models: dict[str, list[PlannedCell]] = {}
    for planned in cells:
        models.setdefault(planned.cell.base_name, []).append(planned)
    groups: list[list[PlannedCell]] = [[]]
    for members in models.values():
        for start in range(0, len(members), MOST_TOGETHER):
            part = members[start : start + MOST_TOGETHER]
            if len(groups[-1]) + len(part) > MOST_TOGETHER:
                groups.append([])
            groups[-1] += part
    return groups
