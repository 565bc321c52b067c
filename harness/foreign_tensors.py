"""The tensors of a user's own file: what its manifest says, the rest inferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from harness.errors import BadConfig
from harness.interfaces import ANSWERS, Outputs
from harness.outputs import KINDS, real
from harness.records import Artifact, ImageSpec, OutputKind, Record, TensorSpec, layout_of

SLACK = 1e-3
"""How far a score may be outside 0..1, or a box inside out, before it is none."""


class ImageAsked(Record, frozen=True, kw_only=True):
    """``mean`` and ``std`` on pixels of 0..255; the size only where the file leaves it open."""

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    height: int | None = None
    width: int | None = None
    channel_order: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["NCHW", "NHWC"] | None = None


class OutputsAsked(Record, frozen=True, kw_only=True):
    """``tensors`` holds the file's name for each name of the kind, such as ``logits: output_1``."""

    kind: OutputKind | None = None
    tensors: dict[str, str] = msgspec.field(default_factory=dict)


_AXES: dict[OutputKind, list[int]] = {
    "heads": [3, 3],
    "scored_boxes": [3, 3],
    "detections": [3, 2, 2, 1],
}
"""Number of axes of each of a kind's tensors."""
_OPERATOR = {f"TFLite_Detection_PostProcess{tail}" for tail in ("", ":1", ":2", ":3")}
"""What TensorFlow 1 names the answers of its operator: boxes, classes, scores, number."""


def input_of(inputs: Sequence[TensorSpec], asked: ImageAsked, where: str) -> TensorSpec:
    """The file's only input, one image of a known size in a known layout.

    Raises:
        BadConfig: several inputs, no image, a size that neither file nor manifest says.
    """
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise BadConfig(
            f"{where}: the file takes {_listed(inputs)}, expected one image of four axes"
        )
    (found,) = inputs
    layout = asked.layout or _layout(found.shape)
    if layout is None:
        raise BadConfig(
            f"{where}: input '{found.name}' is {found.shape}, no axis of three channels: give"
            " image.layout, NCHW or NHWC"
        )
    rows, columns = (2, 3) if layout == "NCHW" else (1, 2)
    shape = list(found.shape)
    for axis, name, told in ((rows, "height", asked.height), (columns, "width", asked.width)):
        if shape[axis] > 0 and told not in (None, shape[axis]):
            raise BadConfig(
                f"{where}: image.{name} is {told}, the file takes {shape[axis]}: leave it out"
            )
        if shape[axis] <= 0 and told is None:
            raise BadConfig(f"{where}: the file leaves the {name} open: give image.{name}")
        shape[axis] = told or shape[axis]
    shape[0] = 1 if shape[0] <= 0 else shape[0]
    return msgspec.structs.replace(found, shape=tuple(shape), layout=layout)


def image_of(fed: TensorSpec, asked: ImageAsked, where: str) -> tuple[ImageSpec, TensorSpec]:
    """How a picture becomes the input, and the input as the preprocessor takes it.

    Without mean and std, an integer input takes the pixels as they are; a float one must say.

    Raises:
        BadConfig: mean or std missing.
    """
    rows, columns = (2, 3) if fed.layout == "NCHW" else (1, 2)
    mean, std = asked.mean, asked.std
    if fed.dtype == "uint8":
        scale, zero = fed.scale or 1.0, fed.zero_point or 0
        fed = msgspec.structs.replace(fed, scale=scale, zero_point=zero)
        mean = mean or (float(zero),) * 3
        std = std or (1 / scale,) * 3
    if mean is None or std is None:
        raise BadConfig(
            f"{where} does not say how pixels become the {fed.dtype} input: give image.mean and"
            " image.std for (pixel - mean) / std on 0..255, such as [127, 127, 127] and"
            " [128, 128, 128]"
        )
    spec = ImageSpec(
        height=fed.shape[rows],
        width=fed.shape[columns],
        mean=mean,
        std=std,
        channel_order=asked.channel_order,
    )
    return spec, fed


def choose_outputs(
    outputs: Sequence[TensorSpec], asked: OutputsAsked, where: str
) -> tuple[OutputKind, dict[str, str]]:
    """The kind, and the file's tensor for each of the kind's names.

    Raises:
        BadConfig: tensors that the file does not have, or that tell no kind.
    """
    there = {spec.name: spec for spec in outputs}
    kinds: list[OutputKind] = [asked.kind] if asked.kind else list(ANSWERS)
    for kind in kinds:
        names = KINDS[kind].names
        tensors = {name: asked.tensors.get(name, name) for name in names}
        known = set(asked.tensors) <= set(names) and set(tensors.values()) <= set(there)
        if known and [len(there[tensors[name]].shape) for name in names] == _AXES[kind]:
            return kind, tensors
        if kind == "detections" and not asked.tensors and set(there) >= _OPERATOR:
            return kind, dict(zip(names, sorted(_OPERATOR), strict=True))
    wanted = " or ".join(f"{kind} ({', '.join(KINDS[kind].names)})" for kind in kinds)
    raise BadConfig(
        f"{where}: the file answers {_listed(outputs)}, which is not told to be {wanted}: give"
        " outputs.kind and outputs.tensors"
    )


def outputs_of(
    outputs: Sequence[TensorSpec], kind: OutputKind, names: dict[str, str]
) -> tuple[TensorSpec, ...]:
    """The tensors in the order of their kind, their batch of one."""
    there = {spec.name: spec for spec in outputs}
    return tuple(_single(there[names[name]]) for name in KINDS[kind].names)


def check_values(artifact: Artifact, answer: Outputs, where: str) -> None:
    """Hold what a file answers to the kind that its outputs are said to be.

    Raises:
        BadConfig: scores outside 0..1, boxes turned inside out, logits that are scores.
    """
    kind = artifact.output_kind
    named = dict(zip(KINDS[kind].names, real(artifact, answer), strict=True))
    if kind == "heads":
        sums = named["logits"].sum(axis=-1)
        is_scores = bool((named["logits"] >= 0).all() and np.allclose(sums, 1, atol=SLACK))
        if is_scores and artifact.decoding.score == "softmax":
            raise BadConfig(
                f"{where}: '{artifact.outputs[0].name}' sums to 1 over the classes, so it holds"
                " scores already: give decoding.score none, or the raw logits"
            )
        return
    scores, boxes = named["scores"], named["boxes"]
    low, high = float(scores.min(initial=0.0)), float(scores.max(initial=0.0))
    if not -SLACK <= low <= high <= 1 + SLACK:
        raise BadConfig(
            f"{where}: the scores answer {low:.3g} to {high:.3g}, expected 0 to 1: for raw logits"
            " and offsets give outputs.kind heads, and outputs.tensors"
        )
    if kind == "scored_boxes" and (boxes[..., 2:] < boxes[..., :2] - SLACK).any():
        raise BadConfig(
            f"{where}: the boxes are no (xmin, ymin, xmax, ymax), some end before they begin: for"
            " offsets from priors give outputs.kind heads, outputs.tensors and decoding.score none"
        )


def _single(spec: TensorSpec) -> TensorSpec:
    shape = (1, *spec.shape[1:]) if spec.shape and spec.shape[0] <= 0 else spec.shape
    return msgspec.structs.replace(spec, shape=shape, layout=layout_of(shape))


def _layout(shape: Sequence[int]) -> Literal["NCHW", "NHWC"] | None:
    if shape[1] == 3 and shape[3] != 3:
        return "NCHW"
    return "NHWC" if shape[3] == 3 and shape[1] != 3 else None


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}' {spec.dtype} {spec.shape}" for spec in specs) or "nothing"
