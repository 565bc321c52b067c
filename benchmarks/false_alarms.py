"""Does a comparison cry wolf on this machine, and does it see what is there?

    python benchmarks/false_alarms.py [runs]

Each run is what a benchmark does: rounds in processes of their own that time by turns, the A/A
noise floor first. Cell A and its twin do the same work and must not differ; cell B does 15 % more
and must be found slower. A cell multiplies matrices for about a millisecond. Prints two lines a
run and the counts, also of what a comparison without turns would have said of the same samples.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import paired, stats
from harness.children import THREAD_VARIABLES
from harness.rounds import floor_rounds
from harness.timing import Tier, time_calls
from harness.turns import Player, baton, rotate
from harness.verdicts import Verdict

ROUNDS = 6
TIER = Tier(name="rapid", samples=11, seconds=1.0, warmup_calls=20, warmup_seconds=0.1)
WORK = {"A": 80, "A again": 80, "B": 92}
RUNS = 20
MOST_S = 120


def one_round(work: int) -> list[list[float]]:
    """Time ``work`` small matrix products in this process, by turns."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

    def call(_: int) -> None:
        for _ in range(work):
            matrix @ matrix

    turn = baton()
    timing = time_calls(call, TIER, give_way=turn.give_way if turn else None)
    if turn:
        turn.timed()
    (found,) = paired.split(timing.per_call_ns, [timing.turns]) or [[]]
    return [list(map(float, one)) for one in found]


def together(works: Sequence[int], seed: int) -> list[paired.Round]:
    """One round of several cells that take turns."""
    players = [Player(_start(work), MOST_S) for work in works]
    rotate(players, seed)
    for player in players:
        player.release()
    return [json.loads(player.worker.communicate()[0]) for player in players]  # type: ignore[attr-defined]  # these workers are Popen


def _start(work: int):  # type: ignore[no-untyped-def]  # a closure over Popen
    def start(descriptor: int, variables: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, "--round", str(work)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), **variables},
            pass_fds=(descriptor,),
        )

    return start


def one_run(seed: int) -> tuple[float, dict[str, Verdict], dict[str, Verdict]]:
    """The noise floor, the verdicts on the twin and the slower cell, and those without turns."""
    count = floor_rounds(ROUNDS, trial=False)
    control = together([WORK["A"]] * count, seed)
    floor = paired.floor(control, ROUNDS) or 0.0
    apart = paired.floor_apart(control, ROUNDS) or 0.0
    rounds: dict[str, list[paired.Round]] = {name: [] for name in WORK}
    for number in range(ROUNDS):
        for name, one in zip(WORK, together(list(WORK.values()), seed + number), strict=True):
            rounds[name].append(one)
    others = [name for name in WORK if name != "A"]
    return (
        floor,
        {name: by_turns(rounds["A"], rounds[name], floor, name) for name in others},
        {name: without(rounds["A"], rounds[name], apart, name) for name in others},
    )


def by_turns(a: list[paired.Round], b: list[paired.Round], floor: float, name: str) -> Verdict:
    """What detbench says of cells that took turns."""
    verdict = paired.compare(a, b, noise_floor=floor, names=("A", name))
    if verdict is None:
        raise SystemExit("too few turns: the machine is too slow for this benchmark")
    return verdict


def without(a: list[paired.Round], b: list[paired.Round], floor: float, name: str) -> Verdict:
    """What it would say if the same samples had not been taken by turns."""
    samples = [[np.concatenate([np.asarray(t) for t in one]) for one in side] for side in (a, b)]
    sizes = [[len(one) for one in side] for side in samples]
    return stats.compare(
        np.concatenate(samples[0]),
        np.concatenate(samples[1]),
        noise_floor=floor,
        rounds=(sizes[0], sizes[1]),
        names=("A", name),
    )


def main(arguments: Sequence[str]) -> int:
    """Run, print, count; 1 where there is a false alarm or a planted difference is missed."""
    if arguments[:1] == ["--round"]:
        print(json.dumps(one_round(int(arguments[1]))))
        return 0
    runs = int(arguments[0]) if arguments else RUNS
    counts = {"by turns": [0, 0], "without turns": [0, 0]}
    for seed in range(runs):
        floor, *both = one_run(seed)
        for (alarms_found), verdicts in zip(counts.values(), both, strict=True):
            alarms_found[0] += verdicts["A again"].outcome != "indistinguishable"
            alarms_found[1] += verdicts["B"].outcome == "slower"
        print(f"{seed + 1:3} floor {floor:6.1%}  {both[0]['A again'].sentence}", flush=True)
        print(f"{'':18}{both[0]['B'].sentence}", flush=True)
    for how, (alarms, found) in counts.items():
        print(f"{how}: {alarms} false alarms of {runs}, planted 15 % found {found} of {runs}")
    alarms, found = counts["by turns"]
    return 0 if not alarms and found >= 0.95 * runs else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
