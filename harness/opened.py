"""An artifact in a runtime, with what is needed to feed it pictures and to decode its answers.

Preparing pictures, decoding and NMS are the harness's own, the same for every runtime. An artifact
that was exported for batches of several images is fed whole batches: a last one that is not full is
filled up with its last picture, and the answers to the filling are cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import outputs
from harness.images import Preprocessor
from harness.interfaces import Detections, Outputs, Session
from harness.records import Artifact

Pictures = Sequence[NDArray[np.uint8]]


class Opened(NamedTuple):
    """A session and its surroundings; ``priors`` are ``(priors, 4)`` in center form."""

    artifact: Artifact
    session: Session
    prepare: Preprocessor
    priors: NDArray[np.float32]

    @property
    def batch(self) -> int:
        """Images in one call."""
        return self.artifact.inputs[0].shape[0]

    def feed(self, images: Pictures) -> NDArray[Any]:
        """The input for up to ``batch`` pictures, ``(h, w, 3)`` uint8 RGB each."""
        if self.batch == 1:
            return self.prepare(images[0])
        filled = [*images, *[images[-1]] * (self.batch - len(images))]
        return np.concatenate([self.prepare(image) for image in filled])

    @property
    def kind(self) -> outputs.Kind:
        """What the artifact answers."""
        return outputs.KINDS[self.artifact.output_kind]

    def infer(self, images: Pictures) -> Outputs:
        """Answers to any number of pictures, in their order."""
        answers = []
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            answer = self.session.run(self.feed(chunk))
            answers.append(tuple(values[: len(chunk)] for values in answer))
        if len(answers) == 1:
            return answers[0]
        return tuple(np.concatenate(values) for values in zip(*answers, strict=True))

    def detect(self, answer: Outputs, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detections in the first ``len(sizes)`` images of ``answer``, in pixels of each."""
        cut = tuple(values[: len(sizes)] for values in answer)
        return self.kind.detections(self.artifact, self.priors, cut, sizes)
