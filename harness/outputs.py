"""What an artifact answers, by kind: how it becomes detections, how it is held to its network.

`KINDS` holds one entry for every ``output_kind`` of an artifact. Runners answer arrays in the order
of the artifact's outputs and know nothing of this; whoever decodes or compares looks the kind up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness import boxes as geometry
from harness import parity
from harness.decode import class_scores, decode, decode_scored, dequantize
from harness.errors import BadInput
from harness.interfaces import Detections, Outputs, RawOutputs, ScoredBoxes
from harness.records import Artifact, Measurement, OutputKind

Sizes = Sequence[tuple[int, int]]
Priors = NDArray[np.float32]


class Kind(ABC):
    """One kind of outputs. ``names`` are those of its arrays, in order."""

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def detections(
        self, artifact: Artifact, priors: Priors, outputs: Outputs, sizes: Sizes
    ) -> list[Detections]:
        """Detections of a batch, one per image, in pixels of images of ``sizes`` (h, w).

        Raises:
            BadInput: outputs that are not of this kind.
        """

    @abstractmethod
    def compare(
        self, artifact: Artifact, priors: Priors, reference: RawOutputs, got: Outputs
    ) -> tuple[Measurement, ...]:
        """Hold the artifact's answers to the float network's heads on the same images.

        Args:
            reference: logits and offsets of the float network.
            got: the artifact's answers, maybe quantized.

        Raises:
            ParityFailed: too far apart for the artifact's precision.
        """


class Heads(Kind):
    """Raw logits and offsets."""

    names = ("logits", "offsets")

    def detections(
        self, artifact: Artifact, priors: Priors, outputs: Outputs, sizes: Sizes
    ) -> list[Detections]:
        logits, offsets = outputs
        return decode(
            RawOutputs(logits, offsets),
            priors=priors,
            decoding=artifact.decoding,
            sizes=sizes,
            tensors=(artifact.outputs[0], artifact.outputs[1]),
        )

    def compare(
        self, artifact: Artifact, priors: Priors, reference: RawOutputs, got: Outputs
    ) -> tuple[Measurement, ...]:
        sizes = _network_sizes(artifact, reference)
        return parity.check(
            reference,
            real(artifact, got),
            _reference_detections(artifact, priors, reference),
            self.detections(artifact, priors, got, sizes),
            artifact.precision,
        )


class Scored(Kind):
    """Scores and decoded boxes.

    Compared are the scores without the background, and how far each box is from its prior: a
    coordinate itself is mostly the prior's place, which would hide a wrong offset.
    """

    names = ("scores", "boxes")

    def detections(
        self, artifact: Artifact, priors: Priors, outputs: Outputs, sizes: Sizes
    ) -> list[Detections]:
        scores, boxes = real(artifact, outputs)
        return decode_scored(scores, boxes, decoding=artifact.decoding, sizes=sizes)

    def compare(
        self, artifact: Artifact, priors: Priors, reference: RawOutputs, got: Outputs
    ) -> tuple[Measurement, ...]:
        expected = scored(artifact, priors, reference)
        scores, boxes = real(artifact, got)
        places = geometry.to_corners(priors)
        return parity.check(
            (expected.scores[..., 1:], expected.boxes - places),
            (scores[..., 1:], boxes - places),
            _reference_detections(artifact, priors, reference),
            self.detections(artifact, priors, got, _network_sizes(artifact, reference)),
            artifact.precision,
            self.names,
        )


class Ready(Kind):
    """Detections after suppression; only they can be compared."""

    names = ("boxes", "classes", "scores", "number")

    def detections(
        self, artifact: Artifact, priors: Priors, outputs: Outputs, sizes: Sizes
    ) -> list[Detections]:
        boxes, classes, scores, count = real(artifact, outputs)
        shapes = [(len(sizes), *scores.shape[1:], 4), scores.shape, (len(sizes),)]
        if [boxes.shape, classes.shape, count.shape] != shapes or scores.ndim != 2:
            raise BadInput(
                f"outputs have boxes {boxes.shape}, classes {classes.shape}, scores {scores.shape}"
                f" and count {count.shape} for {len(sizes)} images, expected (n, k, 4), (n, k),"
                " (n, k) and (n,): check the order of the outputs in the manifest"
            )
        return [
            _ready(artifact, *one) for one in zip(boxes, classes, scores, count, sizes, strict=True)
        ]

    def compare(
        self, artifact: Artifact, priors: Priors, reference: RawOutputs, got: Outputs
    ) -> tuple[Measurement, ...]:
        return parity.check_detections(
            _reference_detections(artifact, priors, reference),
            self.detections(artifact, priors, got, _network_sizes(artifact, reference)),
            artifact.precision,
        )


KINDS: Mapping[OutputKind, Kind] = {
    "heads": Heads(),
    "scored_boxes": Scored(),
    "detections": Ready(),
}


def real(artifact: Artifact, outputs: Outputs) -> Outputs:
    """Real values of the artifact's answers, float32."""
    pairs = zip(outputs, artifact.outputs, strict=True)
    return tuple(dequantize(values, spec) for values, spec in pairs)


def scored(artifact: Artifact, priors: Priors, heads: RawOutputs) -> ScoredBoxes:
    """Scores and boxes that the artifact's decoding makes of logits and offsets, float64 boxes.

    The column of the background is 0: nobody asks for its score.
    """
    rules = artifact.decoding
    scores = np.zeros(heads.logits.shape, np.float32)
    for one, logits in zip(scores, heads.logits, strict=True):
        one[:, 1:] = class_scores(np.ascontiguousarray(logits.T), rules.score).T
    boxes = geometry.decode(heads.offsets, priors, rules.center_variance, rules.size_variance)
    return ScoredBoxes(scores, boxes)


def _network_sizes(artifact: Artifact, reference: RawOutputs) -> Sizes:
    return [(artifact.image.height, artifact.image.width)] * len(reference.logits)


def _reference_detections(
    artifact: Artifact, priors: Priors, reference: RawOutputs
) -> list[Detections]:
    return decode(
        reference,
        priors=priors,
        decoding=artifact.decoding,
        sizes=_network_sizes(artifact, reference),
    )


def _ready(
    artifact: Artifact,
    boxes: NDArray[Any],
    classes: NDArray[Any],
    scores: NDArray[Any],
    count: Any,
    size: tuple[int, int],
) -> Detections:
    """One image's detections: cut to its count and the score threshold, clipped, best first."""
    number = int(np.clip(np.rint(count), 0, len(scores))) if np.isfinite(count) else 0
    passed = scores[:number] > artifact.decoding.score_threshold
    best = np.argsort(-scores[:number][passed], kind="stable")
    boxes, classes, scores = (
        values[:number][passed][best][: artifact.decoding.max_detections]
        for values in (boxes, classes, scores)
    )
    labels = np.rint(classes).astype(np.int64) + 1
    known = len(artifact.labels)
    if len(labels) and not 1 <= labels.min() <= labels.max() < known:
        raise BadInput(
            f"{artifact.id} answers class {int(labels.max()) - 1} (counted from 0), its manifest"
            f" names {known - 1} classes without the background: correct the labels"
        )
    height, width = size
    pixels = boxes[:, [1, 0, 3, 2]] * (width, height, width, height)
    inside = geometry.clip(pixels, height, width).astype(np.float32)
    usable = (inside[:, :2] < inside[:, 2:]).all(axis=1)
    shown = pixels.astype(np.float32) if artifact.decoding.clip == "never" else inside
    return Detections(shown[usable], labels[usable], scores[usable])
