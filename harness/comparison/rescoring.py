"""Scores computed again from the detections that an accuracy cell left behind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness import accuracy, evaluation
from harness.datasets import open_dataset
from harness.errors import BadInput, DetbenchError
from harness.interfaces import Detections, Truth
from harness.records import Measurement, RunRecord
from harness.results import RunFolder


class Ground(NamedTuple):
    """What detections are held against; ``names`` are the images', in order."""

    names: tuple[str, ...]
    truths: tuple[Truth, ...]
    sizes: tuple[tuple[int, int], ...]


class Found(NamedTuple):
    """Detections of an accuracy cell with what they are held against."""

    detections: list[Detections]
    ground: Ground
    labels: tuple[str, ...]


def detections_path(folder: Path, record: RunRecord) -> Path:
    """Where a run keeps the detections of an accuracy cell."""
    run = RunFolder(folder.parent.parent, folder.parent.name, folder.name)
    return run.detections_path(record.cell_id)


def find(folder: Path, record: RunRecord, labels: Sequence[str]) -> Found | str:
    """The evidence of an accuracy cell, or why it is not there.

    Args:
        folder: the run's.
        labels: class names of the model, background first.
    """
    path = detections_path(folder, record)
    if not path.is_file():
        return f"the detections of {record.cell_id} are not kept ({path.name} is missing)"
    try:
        names, detections = evaluation.load(path)
        ground = ground_of(record.cell.dataset, len(names), tuple(labels))
    except DetbenchError as error:
        return str(error)
    if ground.names != tuple(names):
        return f"{record.cell.dataset} holds other images than {path.name}"
    return Found(detections, ground, tuple(labels))


@lru_cache(maxsize=2)
def ground_of(dataset: str, images: int, labels: tuple[str, ...]) -> Ground:
    """The first ``images`` of a data set: names, ground truth in the model's classes, sizes.

    Raises:
        BadInput: the data set is not here, has fewer images or a class unknown to the model.
    """
    data = open_dataset(dataset, limit=images)
    if len(data) < images:
        raise BadInput(f"{dataset} has {len(data)} images, {images} were scored")
    to_model = evaluation.class_map(data.labels, labels, dataset)
    truths = [data.truth(index) for index in range(len(data))]
    shapes = [data.image(index).shape for index in range(len(data))]
    return Ground(
        tuple(data.image_id(index) for index in range(len(data))),
        tuple(truth._replace(labels=to_model[truth.labels]) for truth in truths),
        tuple((shape[0], shape[1]) for shape in shapes),
    )


def scores(found: Found) -> tuple[Measurement, ...]:
    """All accuracy figures of the detections."""
    truths, sizes = found.ground.truths, found.ground.sizes
    return accuracy.evaluate(truths, found.detections, sizes, found.labels)


def changes(a: Found, b: Found) -> tuple[Measurement, ...]:
    """What ``b`` changes against ``a``: a paired bootstrap over the same images.

    Raises:
        BadInput: they were not found in the same images, or with other classes.
    """
    if a.ground.names != b.ground.names or a.labels != b.labels:
        raise BadInput("the two were scored on other images or classes, so they cannot be paired")
    truths, sizes = a.ground.truths, a.ground.sizes
    return accuracy.compare(truths, a.detections, b.detections, sizes, a.labels)


def same(a: Found, b: Found) -> bool:
    """Whether two sets of detections are equal to the bit."""
    if len(a.detections) != len(b.detections):
        return False
    pairs = zip(a.detections, b.detections, strict=True)
    return all(np.array_equal(x, y) for one, two in pairs for x, y in zip(one, two, strict=True))
