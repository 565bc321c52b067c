"""What recipes that train have in common, without torch: their options and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from harness.errors import BadConfig
from harness.recipe_interface import Need, Recipe
from harness.records import Options, Scalar


class TrainingRecipe(Recipe):
    """Trains on the run's training images, as `models.recipes._holding.tune` does.

    Options:
        images: how many are shown.
        learning_rate: its peak. The default leaves a good network as good as it is; one of which
            a pruning left little wants some 0.003.
        batch: images in a step.
        seed: of the order of the images and their augmentation.
    """

    options: ClassVar[Options] = {"images": 2000, "learning_rate": 2e-4, "batch": 8, "seed": 0}
    positional = "images"
    spoils: ClassVar[frozenset[str]] = frozenset({"adaround", "bias_correct", "qat"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for numbers that cannot be."""
        check_training(self.name, options)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Images to train on."""
        return frozenset({"training"})


def check_training(recipe: str, options: Mapping[str, Scalar]) -> None:
    """Refuse impossible ``images``, ``learning_rate`` and ``batch`` of a recipe that trains.

    Raises:
        BadConfig: naming the option.
    """
    images, batch, rate = (options[key] for key in ("images", "batch", "learning_rate"))
    if not isinstance(images, int) or images < 1:
        raise BadConfig(f"recipe {recipe} got images {images!r}: give at least 1, as {recipe}:2000")
    if not isinstance(batch, int) or batch < 2:
        raise BadConfig(f"recipe {recipe} got batch {batch!r}: give at least 2, for batch norm")
    if not isinstance(rate, float) or not 0 < rate < 1:
        raise BadConfig(
            f"recipe {recipe} got learning_rate {rate!r}: give more than 0 and less than 1"
        )
