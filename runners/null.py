"""A runtime that computes nothing: it measures the harness itself.

What: answers zeros in the shapes and dtypes that the artifact's output tensors say, from arrays
that were made beforehand. Whatever time a cell of this runner shows is the harness's own.
Original code: this repository. Licence: MIT.
Tensor layout: any; the input is only asked for its batch size.

It takes every format and never opens the file, so it can stand beside any artifact. It cannot pass
parity and has no accuracy: `measures_harness_only` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.interfaces import ANSWERS, RUNNERS, Outputs, Runner, RunOptions, Session
from harness.records import Artifact, TensorSpec


class NullSession(Session):
    """Answers zeros. One thread, whatever was asked: there is nothing to share."""

    def __init__(self, artifact: Artifact) -> None:
        self.versions: Mapping[str, str] = {"numpy": np.__version__}
        self._specs, self._answer = artifact.outputs, ANSWERS[artifact.output_kind]
        self._answers: dict[int, Outputs] = {}

    def run(self, images: NDArray[Any]) -> Outputs:
        """Zeros in the artifact's shapes, the same arrays each time."""
        count = len(images)
        if count not in self._answers:
            self._answers[count] = self._answer(*(_zeros(spec, count) for spec in self._specs))
        return self._answers[count]

    def close(self) -> None:
        self._answers.clear()


@RUNNERS.register
class Null(Runner):
    """The harness's own cost."""

    name = "null"
    formats = frozenset()
    modules = ("numpy",)
    extra = "all"
    measures_harness_only = True

    def unsupported(self, artifact_format: str, options: RunOptions) -> str | None:
        """Only another target than the CPU."""
        if options.target != "cpu":
            return f"{self.name} runs on target cpu, not {options.target}"
        return None

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Make the answer for one image; another batch size is made on its first call."""
        session = NullSession(artifact)
        session.run(np.empty(1))
        return session


def _zeros(spec: TensorSpec, count: int) -> NDArray[Any]:
    """The value whose real meaning is 0, which in a quantized tensor is its zero point."""
    return np.full((count, *spec.shape[1:]), spec.zero_point or 0, dtype=spec.dtype)
