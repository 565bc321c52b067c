"""A short training after other recipes, which keeps what they did.

Pruned weights stay zero and clustered ones alike, as `models.recipes._holding` says. The images are
the training data of the run (``training.data``), the loss and the augmentation those of
``detbench train``; the learning rate rises, then falls by half a cosine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._shared import check_training


@RECIPES.register
class FineTune(Recipe):
    """Train on.

    Options:
        images: how many are shown.
        learning_rate: its peak.
        batch: images in a step.
        seed: of the order of the images and their augmentation.
    """

    name = "finetune"
    options: ClassVar[Options] = {"images": 2000, "learning_rate": 2e-4, "batch": 16, "seed": 0}
    positional = "images"
    spoils: ClassVar[frozenset[str]] = frozenset({"adaround", "bias_correct", "qat"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for numbers that cannot be."""
        check_training(self.name, options)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Images to train on."""
        return frozenset({"training"})

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Train in place; the sentence says how the loss went and what was kept."""
        from models.recipes._holding import held, learned, tune

        assert job.training is not None
        images = int(job.options["images"] or 0)
        with held(job.network) as how:
            done = tune(
                job,
                images=images,
                learning_rate=float(job.options["learning_rate"] or 0),
                batch=int(job.options["batch"] or 0),
                seed=int(job.options["seed"] or 0),
            )
        kept = Counter(how.values())
        words = [
            f"{kept[way]} layers kept their {way}s" for way in ("mask", "codebook") if kept[way]
        ]
        return job.network, ("; ".join([learned(done, images, job.training.data), *words]),)
