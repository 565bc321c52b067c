"""Which images recipes train on: as asked, else the training split beside the scored data."""

from __future__ import annotations

import functools

from harness.cache import sha256_text
from harness.config import Matrix, Training
from harness.datasets import open_dataset
from harness.datasets.alike import common
from harness.datasets.training import training_split
from harness.datasets.without import LEFT_OUT
from harness.errors import BadConfig
from harness.recipe_interface import TrainingImages
from harness.weights import Weights

DRAWN = "shapes:train"
MATCH_IOU = 0.5
"""From where a prior learns an object, where nothing says how the weights learned it: SSD's own."""


def resolve(matrix: Matrix, weights: Weights) -> Training:
    """The training of a matrix's recipes on ``weights``, with nothing left open but ``images``.

    Another ``match_iou`` than the weights' own is another question: boxes that were objects become
    background, and a network that is trained on unlearns before it learns.

    Raises:
        BadConfig: there is no such split; it has no ground truth, or some of it is scored as well.
    """
    asked, scored = matrix.training, matrix.data
    found = asked.data or (DRAWN if scored.startswith("shapes") else training_split(scored))
    if found is None:
        raise BadConfig(
            f"no images to train on are known for {scored}, because no training split lies beside"
            " it: name them with --set training.data=…, such as voc:/path:train"
        )
    known = (asked.match_iou, weights.match_iou, MATCH_IOU)
    least = next(iou for iou in known if iou is not None)
    training = Training(data=found, images=asked.images, match_iou=least)
    _check(training, scored, matrix.images if "accuracy" in matrix.measures else 0)
    return training


def given(training: Training) -> TrainingImages:
    """What `resolve` found, as recipes are given it."""
    assert training.data is not None  # `resolve` leaves neither open
    assert training.match_iou is not None
    return TrainingImages(training.data, training.images, training.match_iou)


@functools.cache
def digest(training: Training) -> str:
    """SHA-256 over the content of every training image; of drawn ones their names say it all."""
    data = open_dataset(str(training.data), limit=training.images)
    if data.name == "shapes":
        return sha256_text([f"{data.name}:{data.split}", str(len(data)), data.digest(0)])
    return sha256_text(data.digest(index) for index in range(len(data)))


@functools.cache
def _check(training: Training, scored: str, images: int) -> None:
    data = open_dataset(str(training.data), limit=training.images)
    if not data.labelled:
        raise BadConfig(
            f"{training.data} has no ground truth to train on: name other images with"
            " --set training.data=…"
        )
    if not images:
        return
    both = common(data, range(len(data)), open_dataset(scored, limit=images, skip_bad=True))
    if both:
        raise BadConfig(
            f"{len(both)} of the {len(data)} images that recipes train on ({training.data}) are"
            f" also scored ({scored}), the first is {both[0]}: give another split with"
            f" --set training.data=…, or leave them out by its name, such as {LEFT_OUT}"
        )
