"""Score detections against a data set: classes matched by name, evidence kept, parent compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.accuracy import compare, evaluate
from harness.accuracy.audit import by_pycocotools
from harness.cache import sha256_text
from harness.detections import Found, load, of_names, save
from harness.early import Ended, quoted, record
from harness.errors import BadConfig, BadInput
from harness.fidelity import fidelity
from harness.interfaces import Detections, Truth
from harness.policies import describe
from harness.records import Artifact, Measurement
from harness.registry import suggest
from harness.tasks import MeasureTask

AUDIT_TOLERANCE = 1e-9


def score(
    task: MeasureTask,
    artifact: Artifact,
    where: Mapping[str, str],
    found: Found,
    ended: Ended | None = None,
) -> list[Measurement]:
    """All accuracy figures of what was found, with data set and split in their conditions.

    Without ground truth there is only fidelity, and that only against a float parent.

    Args:
        where: ``dataset`` and ``split``, the names of the data set's parts.
        ended: how the evaluation ended, where a question could end it.

    Raises:
        BadInput: nothing was found to be scored, or pycocotools disagrees.
    """
    if not found.names:
        raise BadInput(f"{where['dataset']}:{where['split']} has no image left to be scored")
    if task.detections:
        save(Path(task.detections), found)
    sizes = found.sizes or ()
    figures: list[Measurement] = []
    if found.truths is not None:
        figures += evaluate(
            found.truths,
            found.detections,
            sizes,
            artifact.labels,
            shown_score=task.accuracy.score or artifact.decoding.shown_score,
            shown_iou=task.accuracy.iou,
        )
        if task.audit:
            check_by_pycocotools(figures, found.truths, found.detections, len(artifact.labels))
    parent = load(Path(task.reference)) if task.reference else None
    theirs = of_names(parent, found.names) if parent is not None else None
    if theirs is not None:
        same = theirs, found.detections, sizes, artifact.labels
        changes = compare(found.truths, *same) if found.truths is not None else ()
        figures += quoted(changes, ended) if ended else changes
        figures += fidelity(found.names, *same)
    placed = [
        msgspec.structs.replace(item, conditions={**where, **item.conditions}) for item in figures
    ]
    why = [record(ended, task.accuracy.seed)] if ended else []
    return [*placed, *why, _images(artifact, where, found)]


def check_by_pycocotools(
    found: Sequence[Measurement],
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    classes: int,
) -> None:
    """Hold our COCO figures to pycocotools' own.

    Raises:
        BadInput: one differs by more than `AUDIT_TOLERANCE`.
        MissingExtra: pycocotools is not installed.
    """
    ours = next(item for item in found if item.metric == "accuracy.coco_map").conditions["coco"]
    for name, judged in by_pycocotools(truths, detections, classes).items():
        mine = ours[name]
        if (mine is None) != (judged is None) or abs((mine or 0) - (judged or 0)) > AUDIT_TOLERANCE:
            raise BadInput(f"COCO figure {name} is {mine}, pycocotools says {judged}: report this")


def class_map(
    data_labels: Sequence[str], model_labels: Sequence[str], where: str
) -> NDArray[np.int64]:
    """Index into the model's labels for each index into the data set's, by name.

    Raises:
        BadConfig: a class of the data set that the model does not know.
    """
    known = {name: index for index, name in enumerate(model_labels) if index}
    mapped = [0]
    for name in data_labels[1:]:
        if name not in known:
            raise BadConfig(
                f"{where} has class '{name}', which the model does not know: {suggest(name, known)}"
            )
        mapped.append(known[name])
    return np.array(mapped, np.int64)


def _images(artifact: Artifact, where: Mapping[str, str], found: Found) -> Measurement:
    """Which images were scored, by content, and which detections took part."""
    digests = found.digests or ()
    return Measurement(
        metric="accuracy.images",
        value=float(len(digests)),
        unit="images",
        conditions={
            **where,
            "sha256": sha256_text(digests),
            "labelled": found.truths is not None,
            "decoding": describe(artifact.decoding),
            "score_threshold": artifact.decoding.score_threshold,
            "max_detections": artifact.decoding.max_detections,
        },
    )
