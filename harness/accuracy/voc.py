"""Mean average precision as the Pascal VOC development kit defines it (Everingham et al. 2010).

Per class, detections of all images stand best score first; equal scores stand in the order of
images, then in the order given (the devkit's sort is stable over its results file). Each looks for
the object of its class in its image with the highest IoU, the first such object on a tie:

- IoU below the threshold: a false positive;
- the object is `difficult` (or a crowd): the detection counts neither way;
- nobody claimed the object yet: a hit; else a duplicate, which is a false positive.

The devkit works on inclusive whole-pixel corners and adds 1 to every side. Our boxes are continuous
(xmin and ymin are 1 less), so their plain IoU is the same number.

A class without an object that counts has no average precision (the devkit divides by zero there):
it is None and stands outside the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import boxes as geometry
from harness.accuracy.curves import Matches, Rule, area_under, average_precision, eleven_points
from harness.errors import BadInput
from harness.interfaces import Detections, Truth

Definition = Literal["voc07", "voc12"]
RULES: dict[Definition, Rule] = {"voc07": eleven_points, "voc12": area_under}


class VocResult(NamedTuple):
    """Mean over the classes that have objects, and each class's average precision, 0..1."""

    mean: float | None
    per_class: dict[str, float | None]


def voc_map(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    labels: Sequence[str],
    *,
    iou_threshold: float = 0.5,
    definition: Definition = "voc12",
) -> VocResult:
    """Score ``detections`` against ``truths``, image by image in the same order.

    Args:
        labels: class names, background first.
        definition: ``voc07`` averages precision at 11 recalls, ``voc12`` takes the area.

    Raises:
        BadInput: different numbers of images, labels out of range, values that are not finite.
    """
    matches = voc_matches(truths, detections, len(labels), iou_threshold)
    return voc_result(matches, labels, RULES[definition])


def voc_result(matches: Sequence[Matches], labels: Sequence[str], rule: Rule) -> VocResult:
    """Average precision per class and their mean, from the matches of every class."""
    once = np.ones((1, len(matches[0].positives)), dtype=np.float32)
    per_class: dict[str, float | None] = {}
    for label, of_class in zip(labels[1:], matches, strict=True):
        value = float(average_precision(of_class, once, rule)[0, 0, 0])
        per_class[label] = None if np.isnan(value) else value
    known = [value for value in per_class.values() if value is not None]
    return VocResult(sum(known) / len(known) if known else None, per_class)


def voc_matches(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    classes: int,
    iou_threshold: float = 0.5,
    epsilon: float = 0.0,
) -> list[Matches]:
    """`Matches` of every class but the background, at one IoU threshold.

    ``epsilon`` is added to every union (see `harness.boxes.iou`); the devkit adds nothing.
    """
    check(truths, detections, classes)
    positives = np.zeros((classes, len(truths)), dtype=np.int64)
    hits, ignored = [], []
    for index, (truth, found) in enumerate(zip(truths, detections, strict=True)):
        counts = ~(truth.difficult | truth.crowd)
        positives[:, index] = np.bincount(truth.labels[counts], minlength=classes)
        hit, ignore = _match_image(truth, found, counts, iou_threshold, epsilon)
        hits.append(hit)
        ignored.append(ignore)
    image = np.repeat(np.arange(len(truths)), [len(found.scores) for found in detections])
    scores = np.concatenate([[], *(found.scores for found in detections)])
    owner = np.concatenate([np.zeros(0, np.int64), *(found.labels for found in detections)])
    hit, ignore = (np.concatenate([np.zeros(0, np.bool_), *part]) for part in (hits, ignored))
    order = np.argsort(-scores, kind="stable")
    return [
        Matches(image[chosen], hit[None, chosen], ignore[None, chosen], positives[label])
        for label in range(1, classes)
        for chosen in [order[owner[order] == label]]
    ]


def _match_image(
    truth: Truth,
    found: Detections,
    counts: NDArray[np.bool_],
    iou_threshold: float,
    epsilon: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Hit and ignored flags of one image's detections, in their own order."""
    hit, ignored = np.zeros((2, len(found.scores)), dtype=np.bool_)
    if not len(found.scores) or not len(truth.labels):
        return hit, ignored
    overlap = geometry.iou(found.boxes, truth.boxes, epsilon)
    overlap[found.labels[:, None] != truth.labels] = -1.0
    target = overlap.argmax(axis=1)
    touches = overlap[np.arange(len(target)), target] >= iou_threshold
    ignored = touches & ~counts[target]
    claims = np.argsort(-found.scores, kind="stable")
    claims = claims[(touches & counts[target])[claims]]
    hit[claims[np.unique(target[claims], return_index=True)[1]]] = True
    return hit, ignored


def check(truths: Sequence[Truth], detections: Sequence[Detections], classes: int) -> None:
    """Refuse what cannot be scored.

    Raises:
        BadInput: no classes, different numbers of images, labels out of range, values that are
            not finite.
    """
    if classes < 2:
        raise BadInput("there are no classes beside the background: nothing can be scored")
    if len(truths) != len(detections):
        raise BadInput(
            f"{len(truths)} images have ground truth and {len(detections)} have detections:"
            " score the same images in the same order"
        )
    for index, (truth, found) in enumerate(zip(truths, detections, strict=True)):
        for kind, owner in (("ground truth", truth.labels), ("a detection", found.labels)):
            if len(owner) and not (owner.min() > 0 and owner.max() < classes):
                raise BadInput(
                    f"image {index} has {kind} with a label outside 1..{classes - 1}:"
                    " the labels of the model and of the data set must be the same list"
                )
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
            raise BadInput(
                f"image {index} has a detection whose box or score is not finite:"
                " check the model's outputs with detbench parity"
            )
