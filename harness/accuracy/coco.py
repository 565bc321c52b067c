"""Mean average precision as COCO defines it: the twelve figures of ``COCOeval.summarize``.

Computed in numpy, many times faster than pycocotools, which stays the judge: tests hold every
figure to pycocotools' within 1e-12 on golden files, real photos and hundreds of random cases, and
`harness.accuracy.audit` does the same for a user's own run.

At most 100 detections per class and image count, crowd regions are ignored the COCO way, and VOC's
`difficult` objects are ordinary objects, for COCO knows no such flag. The sizes (small up to 32²,
medium up to 96² pixels) are those of `Truth.area` where a data set has it, as COCO's instances do
(the area of the segment); else those of the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.accuracy.coco_matching import SIZE_RANGES, Matching, match
from harness.accuracy.curves import Floats, Matches, average_precision, recall_levels
from harness.accuracy.voc import check
from harness.interfaces import Detections, Truth

FIGURES = (
    "map",
    "map50",
    "map75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
)
"""Names of the twelve figures in pycocotools' order: AP six times, then average recall."""


class CocoResult(NamedTuple):
    """COCO's figures by name (see `FIGURES`) and AP per class; None where undefined.

    ``per_class`` is AP@[.5:.95], ``per_class50`` is AP@.5. ``matches`` holds the matches of every
    class at the ten IoU thresholds, all object sizes.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    per_class50: dict[str, float | None]
    matches: list[Matches]


def coco_summary(
    truths: Sequence[Truth], detections: Sequence[Detections], labels: Sequence[str]
) -> CocoResult:
    """Score ``detections`` against ``truths``, image by image in the same order.

    Args:
        labels: class names, background first.

    Raises:
        BadInput: no classes, different numbers of images, labels out of range, values that are
            not finite.
    """
    matching = _matching(truths, detections, len(labels))
    precision = {size: _precision(matching, size, len(labels)) for size in SIZE_RANGES}
    whole = precision["all"]
    figures = {
        "map": _mean(whole),
        "map50": _mean(whole[:, 0]),
        "map75": _mean(whole[:, 5]),
        **{f"map_{size}": _mean(precision[size]) for size in ("small", "medium", "large")},
        **{f"mar_{most}": _mean(_recall(matching, "all", most)) for most in (1, 10, 100)},
        **{f"mar_{size}": _mean(_recall(matching, size, 100)) for size in list(SIZE_RANGES)[1:]},
    }
    return CocoResult(
        figures,
        {label: _mean(values) for label, values in zip(labels[1:], whole, strict=True)},
        {label: _mean(values[:1]) for label, values in zip(labels[1:], whole, strict=True)},
        [matching.of_class(label, "all") for label in range(1, len(labels))],
    )


def coco_matches(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int
) -> list[Matches]:
    """`Matches` of every class but the background, at the ten IoU thresholds, all object sizes.

    Raises:
        BadInput: as `coco_summary`.
    """
    matching = _matching(truths, detections, classes, ("all",))
    return [matching.of_class(label, "all") for label in range(1, classes)]


def _matching(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    classes: int,
    sizes: Sequence[str] = tuple(SIZE_RANGES),
) -> Matching:
    check(truths, detections, classes)
    return match(truths, detections, classes, sizes)


def _precision(matching: Matching, size: str, classes: int) -> Floats:
    """AP of every class at every threshold, ``(classes - 1, t)``, NaN without objects."""
    once = np.ones((1, matching.positives[size].shape[1]), dtype=np.float32)
    of_classes = (matching.of_class(label, size) for label in range(1, classes))
    return np.stack([average_precision(of, once, recall_levels)[0, :, 0] for of in of_classes])


def _recall(matching: Matching, size: str, most: int) -> Floats:
    """Share of objects found by the best ``most`` detections per image and class, likewise."""
    counts = matching.positives[size].sum(axis=1)[1:, None]
    hit = matching.hit[size] & (matching.answers.rank < most)
    found = np.stack(
        [hit[:, matching.rows(label)].sum(axis=1) for label in range(1, len(counts) + 1)]
    )
    undefined = np.full(found.shape, np.nan)
    return np.asarray(np.divide(found, counts, out=undefined, where=counts > 0))


def _mean(values: Floats) -> float | None:
    """Mean of what is defined, None where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
