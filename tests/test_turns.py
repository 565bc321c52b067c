"""Processes that take turns: the turn goes round, nobody works meanwhile, failures are theirs."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.children import Child
from harness.errors import DetbenchError
from harness.registry import ROOT
from harness.timing import TURN_CALLS, Tier, time_calls
from harness.turns import GO, Baton, Player, rotate

TIER = Tier(name="quick", samples=40, seconds=0.4, warmup_calls=1, warmup_seconds=0.0)
WORKER = """
import json, sys, time
from harness.timing import Tier, time_calls
from harness.turns import baton
out, dies = sys.argv[1], sys.argv[2] == "dies"
spans = []
def call(_):
    start = time.monotonic()
    time.sleep(0.01)
    if dies and len(spans) > 15:
        sys.exit(3)
    spans.append((start, time.monotonic()))
turn = baton()
tier = Tier(name="quick", samples=40, seconds=0.4, warmup_calls=1, warmup_seconds=0)
timing = time_calls(call, tier, give_way=turn.give_way)
turn.timed()
json.dump([spans, list(timing.turns)], open(out, "w"))
"""


def _player(out: Path, how: str = "lives") -> Player:
    def start(descriptor: int, variables: dict[str, str]) -> Worker:
        return Worker(out, how, descriptor, variables)

    return Player(start, timeout_s=30)


class Worker:
    """A process that sleeps 10 ms a call."""

    def __init__(self, out: Path, how: str, descriptor: int, variables: dict[str, str]) -> None:
        command = [sys.executable, "-c", WORKER, str(out), how]
        environment = {"PYTHONPATH": str(ROOT), **variables}
        self.process = subprocess.Popen(command, env=environment, pass_fds=(descriptor,))

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()


def _run(folder: Path, *how: str) -> list[tuple[list[list[float]], list[int]] | None]:
    """Calls of each worker (start, end) and the lengths of its turns; None of one that died."""
    paths = [folder / f"{number}.json" for number in range(len(how))]
    players = [_player(path, kind) for path, kind in zip(paths, how, strict=True)]
    cpu = time.process_time()
    rotate(players, seed=1)
    assert time.process_time() - cpu < 0.1  # METHOD rule 8: the supervisor sleeps
    for player in players:
        player.release()
        assert isinstance(player.worker, Worker)
        player.worker.process.wait(30)
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]


def test_one_works_at_a_time_and_the_turns_alternate(tmp_path: Path) -> None:
    first, second = _run(tmp_path, "lives", "lives")
    assert first
    assert second
    timed = [
        (start, end, who)
        for who, (spans, _) in enumerate((first, second))
        for start, end in spans[2:]
    ]
    timed.sort()
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(timed))
    changes = sum(one[2] != other[2] for one, other in itertools.pairwise(timed))
    assert changes >= len(first[1])  # mirrored: each pair of turns changes hands at least once
    for spans, turns in (first, second):
        assert sum(turns) >= 40
        assert min(turns) >= TURN_CALLS
        assert len(spans) == 2 + len(turns) + sum(turns)  # first, warm-up, one resumed call a turn


def test_one_that_dies_leaves_the_turn_to_the_others(tmp_path: Path) -> None:
    dead, alive = _run(tmp_path, "dies", "lives")
    assert dead is None
    assert alive
    assert sum(alive[1]) >= 40


def test_without_others_there_are_no_turns() -> None:
    timing = time_calls(lambda _: time.sleep(0.001), TIER)
    assert timing.turns == ()
    assert timing.resumed_ns == ()
    assert "turns" not in timing.measurements("inference")[0].conditions


def test_a_turn_keeps_its_first_call_apart() -> None:
    """The first call after others is slow by plan: it is kept, and not in the steady state."""
    fresh = [False]

    def call(_: int) -> None:
        time.sleep(0.02 if fresh[0] else 0.002)
        fresh[0] = False

    def give_way() -> None:
        fresh[0] = True

    timing = time_calls(call, TIER, give_way=give_way)
    assert len(timing.resumed_ns) == len(timing.turns)
    assert min(timing.resumed_ns) > 15e6
    assert np.median(timing.samples_ns) < 10e6
    steady = timing.measurements("inference")[0]
    assert steady.conditions["turns"] == [list(timing.turns)]
    assert sum(timing.turns) == len(steady.samples)


def test_a_child_is_its_own_process_group() -> None:
    assert {"end", "kill", "late", "pid"} <= set(dir(Child))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_a_turn_begins_on_the_core_of_the_one_before_and_may_leave_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: asked.append(set(cores)))
    mine, theirs = socket.socketpair()
    with mine, theirs:
        for core in (1, 7, -1):  # one that it may use, one that it may not, and none
            mine.send(GO.pack(core))
            Baton(theirs.fileno()).give_way()
    assert asked == [{1}, {0, 1, 2}]


def test_a_supervisor_that_is_gone_is_one_sentence() -> None:
    mine, theirs = socket.socketpair()
    with theirs:
        mine.close()
        with pytest.raises(DetbenchError, match="the supervisor is gone"):
            Baton(theirs.fileno()).give_way()


def test_the_core_of_a_player_is_read(tmp_path: Path) -> None:
    player = _player(tmp_path / "out.json")
    assert player.core() in range(psutil.cpu_count() or 1)
    assert isinstance(player.worker, Worker)
    player.worker.kill()
    player.worker.process.wait(30)
    player.release()
