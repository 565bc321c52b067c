"""Score detections against a data set: classes matched by name, evidence kept, parent compared."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.accuracy import compare, evaluate
from harness.accuracy.audit import by_pycocotools
from harness.cache import write_atomic
from harness.errors import BadConfig, BadInput, ResultsError
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

    Raises:
        BadConfig: the data set has a class that the model does not know.
    """
    to_model = class_map(data.labels, artifact.labels, f"{data.name}:{data.split}")
    truths = [_mapped(data.truth(index), to_model) for index in range(len(data))]
    found = list(evaluate(truths, detections, sizes, artifact.labels))
    if task.audit:
        check_by_pycocotools(found, truths, detections, len(artifact.labels))
    names = [data.image_id(index) for index in range(len(data))]
    if task.detections:
        save(Path(task.detections), names, detections)
    if task.reference:
        parent_names, parent = load(Path(task.reference))
        if parent_names == names:
            found += compare(truths, parent, detections, sizes, artifact.labels)
    return [*_with_data(found, data), _overlap(artifact, data)]


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


def save(path: Path, names: Sequence[str], detections: Sequence[Detections]) -> None:
    """Keep all detections of a data set in one ``.npz``: the evidence behind a score."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {
        "names": np.array(names),
        "counts": np.array([len(one.scores) for one in detections], np.int64),
        "boxes": np.concatenate([one.boxes for one in detections]),
        "labels": np.concatenate([one.labels for one in detections]),
        "scores": np.concatenate([one.scores for one in detections]),
    }
    np.savez_compressed(stream, **arrays)
    write_atomic(path, stream.getvalue())


def load(path: Path) -> tuple[list[str], list[Detections]]:
    """What `save` wrote.

    Raises:
        ResultsError: it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            ends = np.cumsum(data["counts"])[:-1]
            parts = (np.split(data[key], ends) for key in ("boxes", "labels", "scores"))
            return data["names"].tolist(), [Detections(*one) for one in zip(*parts, strict=True)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ResultsError(f"detections {path} cannot be read ({error}): delete them") from None


def _mapped(truth: Truth, to_model: NDArray[np.int64]) -> Truth:
    return truth._replace(labels=to_model[truth.labels])


def _with_data(found: Sequence[Measurement], data: Dataset) -> list[Measurement]:
    where = {"dataset": data.name, "split": data.split}
    return [
        msgspec.structs.replace(item, conditions={**where, **item.conditions}) for item in found
    ]


def _overlap(artifact: Artifact, data: Dataset) -> Measurement:
    """How many evaluation images also calibrated the artifact, by content: it should be 0."""
    calibrating = set(artifact.calibration.sha256) if artifact.calibration else set()
    digests = (data.digest(index) for index in range(len(data))) if calibrating else ()
    common = sum(digest in calibrating for digest in digests)
    return Measurement(
        metric="accuracy.calibration_overlap",
        value=float(common),
        unit="images",
        conditions={"calibrated_on": len(calibrating)},
    )
