"""Does a comparison cry wolf on this machine, and does it see what is there?

    python benchmarks/false_alarms.py [runs]

Each run is what a benchmark does: rounds in processes of their own, cells in turns, the A/A noise
floor first. Cell A and its twin do the same work and must not differ; cell B does 15 % more and
must be found slower. A cell multiplies matrices for about a millisecond. Prints one line a run and
the two counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.rounds import floor_rounds
from harness.stats import Verdict, compare, noise_floor
from harness.timing import Tier, round_order, time_calls

ROUNDS = 4
TIER = Tier(name="smoke", samples=24, seconds=0, warmup_calls=20, warmup_seconds=0.05)
WORK = {"A": 20, "A again": 20, "B": 23}
RUNS = 20


def one_round(work: int) -> list[float]:
    """Time ``work`` small matrix products, in this process."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

    def call(_: int) -> None:
        for _ in range(work):
            matrix @ matrix

    return list(time_calls(call, TIER).per_call_ns)


def one_run(seed: int) -> tuple[float, Verdict, Verdict]:
    """The noise floor, the verdict on the twin, and the one on the slower cell."""
    count = floor_rounds(ROUNDS, trial=False)
    control = [_in_child(WORK["A"]) for _ in range(count)]
    floor = noise_floor(control, per_cell=ROUNDS) or 0.0
    names = list(WORK)
    rounds: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(ROUNDS):
        for cell in round_order(len(names), number, seed):
            rounds[names[cell]].append(_in_child(WORK[names[cell]]))
    return floor, _verdict(rounds, "A again", floor), _verdict(rounds, "B", floor)


def _verdict(rounds: dict[str, list[list[float]]], name: str, floor: float) -> Verdict:
    a, b = (rounds[key] for key in ("A", name))
    return compare(
        np.concatenate(a),
        np.concatenate(b),
        noise_floor=floor,
        rounds=([len(part) for part in a], [len(part) for part in b]),
        names=("A", name),
    )


def _in_child(work: int) -> list[float]:
    command = [sys.executable, __file__, "--round", str(work)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    samples: list[float] = json.loads(answer.stdout)
    return samples


def main(arguments: Sequence[str]) -> int:
    """Run, print, count."""
    if arguments[:1] == ["--round"]:
        print(json.dumps(one_round(int(arguments[1]))))
        return 0
    runs = int(arguments[0]) if arguments else RUNS
    alarms = found = 0
    for seed in range(runs):
        floor, twin, slower = one_run(seed)
        alarms += twin.outcome != "indistinguishable"
        found += slower.outcome == "slower"
        print(f"{seed + 1:3} floor {floor:6.1%}  {twin.sentence}", flush=True)
        print(f"{'':18}{slower.sentence}", flush=True)
    print(f"false alarms: {alarms} of {runs}; planted 15 % found: {found} of {runs}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
