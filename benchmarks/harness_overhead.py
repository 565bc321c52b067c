"""What the harness itself costs: the timing core around a runtime that computes nothing.

    python benchmarks/harness_overhead.py

Two figures: how much of each *sample* is the harness (it adds to every latency we report), and how
much CPU time goes into one timed call in all, starting and ending included (it only makes a run
longer; the wall clock would count others' work too). The goal is under 100 µs for either.

The call is the one that a cell makes: a prepared input out of a ring, through `runners.null`. It is
so short that a sample is a batch of a few calls; both figures count the whole sample, so a single
call costs less than they say.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.interfaces import RunOptions
from harness.records import Artifact, Decoding, ImageSpec, TensorSpec
from harness.timing import Tier, time_calls
from runners.null import Null

GOAL_NS = 100_000
INPUTS = 8


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


def main() -> int:
    """Print both figures; 1 where the goal is missed."""
    overhead = measure()
    met = max(overhead) < GOAL_NS
    print(
        f"harness overhead: {overhead.in_sample_ns / 1000:.2f} µs within a sample,"
        f" {overhead.per_sample_ns / 1000:.2f} µs of CPU time per timed call in all"
        f" (goal: under {GOAL_NS // 1000} µs, {'met' if met else 'missed'})"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
