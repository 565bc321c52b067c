"""Can these data score this model? Asked when a plan is made, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config import Matrix
from harness.datasets import open_dataset
from harness.errors import BadConfig
from harness.evaluation import class_map
from harness.interfaces import Dataset


def check_artifact(matrix: Matrix, labels: Sequence[str], folder: Path, *, alone: bool) -> None:
    """Refuse to score an artifact ``alone``, without a float parent, and without ground truth.

    Args:
        labels: the classes that the artifact in ``folder`` knows.

    Raises:
        BadConfig: also where the data has other classes.
    """
    data = open_dataset(matrix.data, limit=1, skip_bad=matrix.skip_bad)
    check_classes(matrix, data, labels)
    if alone and "accuracy" in matrix.measures and not data.labelled:
        raise BadConfig(
            f"{matrix.data} has no ground truth, so {folder} cannot be scored on it: give data"
            " that has, or the float export of its model with --against"
        )


def check_classes(matrix: Matrix, data: Dataset, labels: Sequence[str]) -> None:
    """Refuse to score classes of ``data`` that are not among a model's. Raises BadConfig."""
    if "accuracy" in matrix.measures and data.labelled:
        class_map(data.labels, labels, matrix.data)
