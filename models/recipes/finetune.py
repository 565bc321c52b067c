"""A short training after other recipes, which keeps what they did.

Pruned weights stay zero and clustered ones alike, as `models.recipes._holding` says. The images are
the training data of the run (``training.data``), the loss and the augmentation those of
``detbench train``; the learning rate rises, then falls by half a cosine.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.recipe_interface import RECIPES, RecipeJob
from models.recipes._training import TrainingRecipe


@RECIPES.register
class FineTune(TrainingRecipe):
    """Train on."""

    name = "finetune"

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Train in place; the sentence says how the loss went and what was kept."""
        from models.recipes._holding import held, learned, tune

        with held(job.network) as how:
            done = tune(job)
        kept = Counter(how.values())
        words = [
            f"{kept[way]} layers kept their {way}s" for way in ("mask", "codebook") if kept[way]
        ]
        return job.network, ("; ".join([learned(done, job), *words]),)
