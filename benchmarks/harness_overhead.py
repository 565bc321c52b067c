"""What the harness itself costs: around a runtime that computes nothing, and around real ones.

    python benchmarks/harness_overhead.py
    python benchmarks/harness_overhead.py out/onnx out/tflite      # folders made by detbench export

With artifacts, each is run in a process of its own at one thread by the harness's timing and by the
runtime's own minimal loop (its call between two readings of the clock, on the same inputs, with
answers as numpy arrays), in turns that change their order. The goal is a ratio of at most 1.02 for
networks above 1 ms, as the median over pairs of neighbouring calls, by the wall clock alone.

Without artifacts:

Two figures: how much of each *sample* is the harness (it adds to every latency we report), and how
much CPU time goes into one timed call in all, starting and ending included (it only makes a run
longer; the wall clock would count others' work too). The goal is under 100 µs for either.

The call is the one that a cell makes: a prepared input out of a ring, through `runners.null`. It is
so short that a sample is a batch of a few calls; both figures count the whole sample, so a single
call costs less than they say.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import artifacts
from harness.clocks import Clock, interval, no_collection
from harness.interfaces import RUNNERS, RunOptions, Session
from harness.records import Artifact, Decoding, ImageSpec, TensorSpec
from harness.stats import interval as stats_interval
from harness.timing import Tier, time_calls
from runners.null import Null

GOAL_NS = 100_000
GOAL_RATIO = 1.02
INPUTS = 8
WARM_UP, PAIRS, LEAST_PAIRS, MOST_SECONDS = 5, 2000, 50, 15


class Overhead(NamedTuple):
    """Nanoseconds of the harness: within the median sample, and CPU time in all per sample."""

    in_sample_ns: float
    per_sample_ns: float


def measure(samples: int = 20_000) -> Overhead:
    """Take ``samples`` samples of the null runner."""
    tier = Tier(name="smoke", samples=samples, seconds=0, warmup_calls=100, warmup_seconds=0)
    artifact = empty_artifact()
    images = [np.zeros(artifact.inputs[0].shape, dtype=np.float32) for _ in range(INPUTS)]
    with Null().open(artifact, Path(), RunOptions()) as session:
        start = time.process_time_ns()
        timing = time_calls(lambda slot: session.run(images[slot]), tier, inputs=INPUTS, keep=8)
        elapsed = time.process_time_ns() - start
    return Overhead(median(timing.samples_ns), elapsed / len(timing.samples_ns))


def empty_artifact() -> Artifact:
    """The manifest of a 300 × 300 SSD with 3,000 priors and 21 classes that has no file."""
    return Artifact(
        model="none",
        model_options={},
        weights_sha256="",
        weights_source="none",
        recipe="none",
        exporter="none",
        format="none",
        precision="float32",
        options={},
        files=(),
        sha256="0" * 64,
        size_bytes=0,
        inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 3, 300, 300), layout="NCHW"),),
        outputs=(
            TensorSpec(name="logits", dtype="float32", shape=(1, 3000, 21), layout="NPC"),
            TensorSpec(name="offsets", dtype="float32", shape=(1, 3000, 4), layout="NPC"),
        ),
        image=ImageSpec(height=300, width=300, mean=(127.0,) * 3, std=(128.0,) * 3),
        decoding=Decoding(),
        labels=("background",),
        calibration=None,
        toolchain={},
        fingerprint="",
        created_at="1970-01-01T00:00:00Z",
        export_ns=0,
    )


def raw(session: Session, ring: Sequence[NDArray[Any]]) -> Callable[[int], object]:
    """The runtime's own call on input number ``slot``, with everything prepared that can be."""
    parts: Any = session
    kind = type(session).__name__
    if kind == "OrtSession":
        run, outputs, name = parts._run, parts._outputs, parts._input
        return lambda slot: run(outputs, {name: ring[slot]})
    if kind == "LitertSession":
        interpreter, given = parts._interpreter, parts._image_index
        answers = [detail["index"] for detail in interpreter.get_output_details()]

        def invoke(slot: int) -> object:
            interpreter.set_tensor(given, ring[slot])
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in answers]

        return invoke
    if kind == "TvmSession":
        main, staging, staged = parts._main, parts._staging, parts._input

        def call(slot: int) -> object:
            np.copyto(staging, ring[slot])
            return tuple(map(np.from_dlpack, main(staged)))

        return call
    if kind == "TorchSession":
        torch, module = parts._torch, parts._call
        tensors = [torch.from_numpy(image) for image in ring]

        def infer(slot: int) -> object:
            with torch.inference_mode():
                return [tensor.numpy() for tensor in module(tensors[slot])]

        return infer
    raise SystemExit(f"no minimal loop is written for {kind}")


def compare(folder: Path) -> bool:
    """Print both medians and their ratio; whether the goal is met."""
    artifact = artifacts.load(folder)
    runner = next(
        RUNNERS.get(name)
        for name in RUNNERS.names()
        if artifact.format in RUNNERS.get(name).formats
    )
    spec = artifact.inputs[0]
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, spec.shape).astype(spec.dtype)
    with runner().open(artifact, folder, RunOptions()) as session, no_collection():
        ring = [image.copy() for _ in range(INPUTS)]
        minimal = raw(session, ring)

        def by_harness(slot: int, clock: Clock) -> int:
            return interval(lambda place: session.run(ring[place]), (slot,), clock)[0]

        def by_itself(slot: int, clock: Clock) -> int:
            start = clock()
            minimal(slot)
            return clock() - start

        ours, theirs = in_turns((by_harness, by_itself), time.perf_counter_ns)
    found = ratio(ours, theirs)
    met = found.ratio <= GOAL_RATIO or median(theirs) < 1e6
    print(
        f"{artifact.id} on {runner.name}, 1 thread: harness {median(ours) / 1e6:.3f} ms, minimal"
        f" loop {median(theirs) / 1e6:.3f} ms; ratio call by call {found.ratio:.4f} (95 % interval"
        f" {found.low:.4f} to {found.high:.4f}, {len(ours)} pairs; goal {GOAL_RATIO},"
        f" {'met' if met else 'missed'})",
        flush=True,
    )
    return met


class Ratio(NamedTuple):
    """Median over pairs of calls of what one took over what the other took."""

    ratio: float
    low: float
    high: float


def ratio(ours: Sequence[int], theirs: Sequence[int]) -> Ratio:
    """Pair by pair: a neighbour that slows both cancels."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = stats_interval(ratios) or (min(ratios), max(ratios))
    return Ratio(median(ratios), low, high)


def in_turns(
    calls: tuple[Callable[[int, Clock], int], ...], clock: Clock
) -> tuple[list[int], list[int]]:
    """Samples of two calls that take turns, first the one, then the other."""
    found: tuple[list[int], list[int]] = ([], [])
    end = time.monotonic() + MOST_SECONDS
    for number in range(WARM_UP + PAIRS):
        if time.monotonic() > end and number > WARM_UP + LEAST_PAIRS:
            break
        for index in (0, 1) if number % 2 else (1, 0):
            found[index].append(calls[index](number % INPUTS, clock))
    return found[0][WARM_UP:], found[1][WARM_UP:]


def main(arguments: Sequence[str]) -> int:
    """Print the figures; 1 where a goal is missed."""
    if arguments[:1] == ["--one"]:
        return 0 if compare(Path(arguments[1])) else 1
    if arguments:
        own = [sys.executable, __file__, "--one"]
        return max(subprocess.run([*own, folder]).returncode for folder in arguments)
    overhead = measure()
    met = max(overhead) < GOAL_NS
    print(
        f"harness overhead: {overhead.in_sample_ns / 1000:.2f} µs within a sample,"
        f" {overhead.per_sample_ns / 1000:.2f} µs of CPU time per timed call in all"
        f" (goal: under {GOAL_NS // 1000} µs, {'met' if met else 'missed'})"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
