"""What an artifact answers to its golden images, also as a script in another userland.

python -m tests.answers FOLDER RUNNER OUT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import artifacts
from harness.images import Preprocessor
from harness.interfaces import RUNNERS, RunOptions
from harness.opened import Opened


def answers(folder: Path, runner: str) -> list[NDArray[np.float64]]:
    """Logits and offsets, as real numbers."""
    artifact = artifacts.load(folder)
    golden = artifacts.golden(folder)
    assert golden is not None
    with RUNNERS.get(runner)().open(artifact, folder, RunOptions(threads=1)) as session:
        prepare = Preprocessor(artifact.image, artifact.inputs[0])
        opened = Opened(artifact, session, prepare, artifacts.priors(folder))
        found = opened.infer(list(golden.images))
    return [
        (values.astype(np.float64) - (spec.zero_point or 0)) * (spec.scale or 1.0)
        for values, spec in zip(found, artifact.outputs, strict=True)
    ]


if __name__ == "__main__":
    logits, offsets = answers(Path(sys.argv[1]), sys.argv[2])
    np.savez(sys.argv[3], logits=logits, offsets=offsets)
