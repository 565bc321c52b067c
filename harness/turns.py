"""Processes that time by turns: all alive, one at work, and the turn goes round.

A neighbour that slows a machine down does so for seconds. Cells timed one after the other meet it
or do not, and differ by that. Cells that alternate every few hundredths of a second meet it alike.

Each child has one end of a socket. It prepares itself, then hands its turn over by a byte and
sleeps in the kernel until an answer comes; so does the supervisor. The answer says on which core
the one before ran, and the child begins there: a process that wakes up stays on its own core,
and cores beside different neighbours would look like different cells.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import psutil

from harness._cgroup import ROOT, memory_limit_bytes, read
from harness.errors import DetbenchError
from harness.timing import round_order

VARIABLE = "DETBENCH_TURN"
"""Environment variable with the number of the child's end of its socket."""
MORE, TIMED = b"m", b"t"
GO = struct.Struct("<i")
"""The answer: the core to begin on, or -1 where that is the child's own affair."""
PROCESSOR = 36
"""Where ``/proc/<pid>/stat`` has the core, counted after the name in brackets."""
State = Literal["more", "timed", "ended", "late"]
SPARE = 2
"""Another child is started while memory has room for so many more of the largest."""
MOST_TOGETHER = 16


class Baton:
    """A child's end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def give_way(self) -> None:
        """Let the others have their turns; answers when it is ours again."""
        self._hand_over(MORE)

    def timed(self) -> None:
        """Say that nothing is left to be timed by turns, and wait until nobody times."""
        self._hand_over(TIMED)

    def _hand_over(self, word: bytes) -> None:
        try:
            os.write(self._descriptor, word)
            answer = os.read(self._descriptor, GO.size)
        except OSError:
            answer = b""
        if len(answer) != GO.size:
            raise DetbenchError("the supervisor is gone: run the same command again")
        _begin_on(GO.unpack(answer)[0])


def _begin_on(core: int) -> None:
    """Move this thread to a core that it may use anyway, and leave it free to be moved again."""
    if core < 0 or not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    if core in allowed and len(allowed) > 1:
        os.sched_setaffinity(0, {core})
        os.sched_setaffinity(0, allowed)


def baton() -> Baton | None:
    """This process's, where it is to time by turns."""
    found = os.environ.get(VARIABLE)
    return Baton(int(found)) if found else None


class Worker(Protocol):
    """A process that was started with a socket's end."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...


class Player:
    """The supervisor's end of one child; ``start`` is given the child's end and its variable."""

    def __init__(self, start: Callable[[int, dict[str, str]], Worker], timeout_s: float) -> None:
        self._mine, theirs = socket.socketpair()
        self._timeout_s = timeout_s
        with theirs:
            self.worker = start(theirs.fileno(), {VARIABLE: str(theirs.fileno())})
        self.state: State = "more"
        self.wait()

    def go(self, core: int = -1) -> None:
        """Give it its turn on ``core`` and sleep until it hands it over or ends."""
        try:
            self._mine.send(GO.pack(core))
        except OSError:
            self.state = "ended"
            return
        self.wait()

    def release(self) -> None:
        """Give it its last turn, which nobody waits for here."""
        with self._mine:
            if self.state == "timed":
                self._mine.send(GO.pack(-1))

    def core(self) -> int:
        """Where its main thread ran last; -1 where that cannot be read."""
        text = read(ROOT / f"proc/{self.worker.pid}/stat") or ""
        fields = text.rpartition(")")[2].split()
        return int(fields[PROCESSOR]) if len(fields) > PROCESSOR else -1

    def wait(self) -> None:
        poll = select.poll()
        poll.register(self._mine, select.POLLIN)
        if not poll.poll(self._timeout_s * 1000):
            self.state = "late"
            return
        try:
            word = self._mine.recv(1)
        except OSError:
            word = b""
        self.state = "more" if word == MORE else "timed" if word == TIMED else "ended"


def rotate(players: Sequence[Player], seed: int) -> None:
    """Give turns until every player has timed all that it has to.

    The order is shuffled, and mirrored every other time, so that what comes before what evens out.
    """
    turn, core = 0, -1
    while alive := [player for player in players if player.state == "more"]:
        for index in round_order(len(alive), turn, seed):
            alive[index].go(core)
            core = alive[index].core()
        turn += 1


def has_room(players: Sequence[Player]) -> bool:
    """Whether memory has room for one more process like the largest of ``players``."""
    sizes = []
    for player in players:
        try:
            sizes.append(psutil.Process(player.worker.pid).memory_info().rss)
        except (psutil.Error, OSError):  # it has ended
            continue
    free = psutil.virtual_memory().available
    limit = memory_limit_bytes()
    if limit is not None:
        free = min(free, limit - sum(sizes))
    return len(players) < MOST_TOGETHER and free > SPARE * max(sizes, default=0)
