"""Score detections against a data set: classes matched by name, evidence kept, parent compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.accuracy import compare, evaluate
from harness.accuracy.audit import by_pycocotools
from harness.cache import sha256_text
from harness.detections import Found, load, save
from harness.errors import BadConfig, BadInput
from harness.fidelity import fidelity
from harness.interfaces import Dataset, Detections, Truth
from harness.records import Artifact, Measurement
from harness.registry import suggest
from harness.tasks import MeasureTask

AUDIT_TOLERANCE = 1e-9


def score(
    task: MeasureTask,
    artifact: Artifact,
    data: Dataset,
    detections: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
) -> list[Measurement]:
    """All accuracy figures, with data set, split and calibration overlap in their conditions.

    Without ground truth there is only fidelity, and that only against a float parent.

    Raises:
        BadConfig: the data set has a class that the model does not know.
    """
    names = [data.image_id(index) for index in range(len(data))]
    digests = [data.digest(index) for index in range(len(data))]
    truths = _truths(data, artifact) if data.labelled else None
    if task.detections:
        mine = Found(names, list(detections), list(sizes), digests, truths)
        save(Path(task.detections), mine)
    found: list[Measurement] = []
    if truths is not None:
        found += evaluate(truths, detections, sizes, artifact.labels)
        if task.audit:
            check_by_pycocotools(found, truths, detections, len(artifact.labels))
    parent = load(Path(task.reference)) if task.reference else None
    if parent is not None and parent.names == names:
        same = parent.detections, detections, sizes, artifact.labels
        found += compare(truths, *same) if truths is not None else ()
        found += fidelity(names, *same)
    return [*_with_data(found, data), _images(artifact, data, digests), _overlap(artifact, digests)]


def _truths(data: Dataset, artifact: Artifact) -> list[Truth]:
    to_model = class_map(data.labels, artifact.labels, f"{data.name}:{data.split}")
    return [_mapped(data.truth(index), to_model) for index in range(len(data))]


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


def _mapped(truth: Truth, to_model: NDArray[np.int64]) -> Truth:
    return truth._replace(labels=to_model[truth.labels])


def _with_data(found: Sequence[Measurement], data: Dataset) -> list[Measurement]:
    where = {"dataset": data.name, "split": data.split}
    return [
        msgspec.structs.replace(item, conditions={**where, **item.conditions}) for item in found
    ]


def _images(artifact: Artifact, data: Dataset, digests: Sequence[str]) -> Measurement:
    """Which images were scored, by content, and which detections took part."""
    return Measurement(
        metric="accuracy.images",
        value=float(len(digests)),
        unit="images",
        conditions={
            "dataset": data.name,
            "split": data.split,
            "sha256": sha256_text(digests),
            "labelled": data.labelled,
            "score_threshold": artifact.decoding.score_threshold,
            "max_detections": artifact.decoding.max_detections,
        },
    )


def _overlap(artifact: Artifact, digests: Sequence[str]) -> Measurement:
    """How many evaluation images also calibrated the artifact, by content: it should be 0."""
    calibrating = set(artifact.calibration.sha256) if artifact.calibration else set()
    return Measurement(
        metric="accuracy.calibration_overlap",
        value=float(sum(digest in calibrating for digest in digests)),
        unit="images",
        conditions={"calibrated_on": len(calibrating)},
    )
