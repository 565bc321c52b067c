"""Scores computed again from the detections and the truth that an accuracy cell left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness import accuracy
from harness.detections import Found, load
from harness.errors import BadInput, DetbenchError
from harness.records import Measurement, RunRecord
from harness.results import RunFolder


def find(folder: Path, record: RunRecord) -> Found | str:
    """The evidence of an accuracy cell of the run in ``folder``, or why it is not there."""
    run = RunFolder(folder.parent.parent, folder.parent.name, folder.name)
    path = run.detections_path(record.cell_id)
    if not path.is_file():
        return f"the detections of {record.cell_id} are not kept"
    try:
        found = load(path)
    except DetbenchError as error:
        return str(error)
    if found.truths is None or found.sizes is None:
        return f"{path.name} holds no ground truth"
    return found


def scores(found: Found, labels: Sequence[str]) -> tuple[Measurement, ...]:
    """All accuracy figures of detections that come with their truth.

    Args:
        labels: the model's class names, background first.
    """
    return accuracy.evaluate(found.truths or [], found.detections, found.sizes or [], labels)


def changes(a: Found, b: Found, labels: Sequence[str]) -> tuple[Measurement, ...]:
    """What ``b`` changes against ``a``: a paired bootstrap over the same images.

    Raises:
        BadInput: they were not found in the same images.
    """
    if a.names != b.names or a.digests != b.digests:
        raise BadInput("the two were scored on other images, so they cannot be paired")
    return accuracy.compare(a.truths or [], a.detections, b.detections, a.sizes or [], labels)


def same(a: Found, b: Found) -> bool:
    """Whether two sets of detections are of the same images and equal to the bit."""
    if a.names != b.names or a.digests != b.digests:
        return False
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for one, two in zip(a.detections, b.detections, strict=True)
        for name in one._fields
    )
