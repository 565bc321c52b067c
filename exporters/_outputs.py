"""What a file answers, by the option ``outputs``: tensor specs, and which values are possible.

``heads`` are raw logits and offsets; ``scored_boxes`` adds softmax or sigmoid and the decoding of
boxes to the graph, as pytorch-ssd and jetson-inference expect; ``detections`` adds suppression too,
as TensorFlow's Object Detection files have it. The manifest's ``output_kind`` is the same word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.interfaces import ANSWERS
from harness.records import Decoding, ModelSpec, OutputKind, Scalar, TensorSpec, layout_of


def kind_of(options: Mapping[str, Scalar]) -> OutputKind:
    """The kind that an exporter's options ask for."""
    return cast(OutputKind, options["outputs"])


PLACES = 100
"""Detections that a file with suppression inside answers where the model's policy has no limit."""


def bad_outputs(
    exporter: str,
    spec: ModelSpec,
    options: Mapping[str, Scalar],
    able: Sequence[str] = tuple(ANSWERS),
) -> str | None:
    """Why the option ``outputs`` cannot be followed, or None."""
    asked, way = options["outputs"], spec.decoding.suppression
    if asked not in able:
        return f"option outputs={asked} of {exporter} cannot be made: give {' or '.join(able)}"
    if asked == "detections" and options.get("batch", 1) != 1:
        return f"option outputs=detections of {exporter} takes one image: give batch=1"
    if asked == "detections" and way != "hard":
        return f"{exporter} has no {way} suppression for {spec.name}: give outputs=scored_boxes"
    return None


def rules_inside(spec: ModelSpec, *, candidates: bool, clips: bool) -> Decoding:
    """The decoding that a graph with suppression inside can follow, the closest to the model's.

    Args:
        candidates: the graph can limit the candidates of a class.
        clips: the graph can cut boxes to the image before suppression.
    """
    rules = spec.decoding
    return msgspec.structs.replace(
        rules,
        max_detections=rules.max_detections or PLACES,
        iou_epsilon=0.0,
        candidates=rules.candidates if candidates else None,
        clip="after" if rules.clip == "before" and not clips else rules.clip,
    )


def changed_rules(spec: ModelSpec, inside: Decoding) -> tuple[str, ...]:
    """A note for every rule of the model's that the graph does not follow."""
    fields = inside.__struct_fields__
    pairs = ((name, getattr(spec.decoding, name), getattr(inside, name)) for name in fields)
    return tuple(
        f"suppression inside the file: {name} is {ours}, the model's policy says {model}"
        for name, model, ours in pairs
        if ours != model
    )


def answers(spec: ModelSpec, kind: OutputKind, batch: int = 1) -> tuple[TensorSpec, ...]:
    """Float32 outputs of a kind, named as the kind names them."""
    priors, classes = len(spec.priors), len(spec.labels)
    places = spec.decoding.max_detections or PLACES
    shapes: dict[OutputKind, dict[str, tuple[int, ...]]] = {
        "heads": {"logits": (batch, priors, classes), "offsets": (batch, priors, 4)},
        "scored_boxes": {"scores": (batch, priors, classes), "boxes": (batch, priors, 4)},
        "detections": {
            "boxes": (batch, places, 4),
            "classes": (batch, places),
            "scores": (batch, places),
            "number": (batch,),
        },
    }
    return tuple(
        TensorSpec(name=name, dtype="float32", shape=shape, layout=layout_of(shape))
        for name, shape in shapes[kind].items()
    )


class BoxRule:
    """Constants that turn offsets into corner boxes: ``centre + move * step ± half * exp(grow)``.

    Attributes:
        centre: ``(priors, 2)`` float32, of the priors.
        step: ``(priors, 2)``, what an offset of 1 moves.
        half: ``(priors, 2)``, half the priors' sides.
        growth: factor of the offsets of the sides.
    """

    def __init__(self, spec: ModelSpec) -> None:
        sides = spec.priors[:, 2:]
        self.centre: NDArray[np.float32] = spec.priors[:, :2].astype(np.float32)
        self.step: NDArray[np.float32] = (sides * spec.decoding.center_variance).astype(np.float32)
        self.half: NDArray[np.float32] = (sides / 2).astype(np.float32)
        self.growth = float(spec.decoding.size_variance)
