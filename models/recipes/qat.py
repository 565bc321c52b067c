"""Quantization-aware training: the network learns with its weights and activations rounded.

Jacob et al. 2018 (arXiv 1712.05877), section 3. Rounding has no gradient of its own: it is passed
through, and stopped where an activation leaves its range (Bengio et al. 2013, arXiv 1308.3432). The
ranges of activations are those of the calibration images before the training, and stay so; the
weights' follow the weights.

What comes out is an ordinary float network whose weights lie on the int8 grid, so that every
integer exporter takes it: each finds the same weights again, and ranges of activations by its own
calibration. Batch norms must be folded before, as exporters do: ``fold+qat``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.errors import Unsupported
from harness.recipe_interface import RECIPES, Need, RecipeJob
from harness.records import Options, Scalar
from models.recipes._scheme import PRESETS
from models.recipes._training import TrainingRecipe


@RECIPES.register
class Qat(TrainingRecipe):
    """Train as the ``int8`` preset of `models.recipes._scheme` rounds."""

    name = "qat"
    options: ClassVar[Options] = {**TrainingRecipe.options, "learning_rate": 1e-4}
    spoils: ClassVar[frozenset[str]] = frozenset({"kmeans", "adaround", "bias_correct"})

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Ranges are observed on calibration images."""
        return frozenset({"training", "calibration"})

    def unsupported(self, network: Any, options: Mapping[str, Scalar]) -> str | None:
        """A network that cannot be traced."""
        from models.recipes._graph import untraceable

        return untraceable(network)

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Train in place; the sentence says how the loss went.

        Raises:
            Unsupported: batch norms are not folded.
        """
        from models.recipes._folding import foldable
        from models.recipes._holding import held, learned, tune
        from models.recipes._quantizing import rounding

        if foldable(job.network):
            raise Unsupported(
                f"recipe qat finds batch norms in {job.spec.name} that exporters fold away: fold"
                " them before, as fold+qat"
            )
        assert job.calibration is not None
        weights, activations = PRESETS["int8"]
        with (
            held(job.network),
            rounding(job.network, weights, activations, job.calibration()) as (traced, places),
        ):
            done = tune(dataclasses.replace(job, network=traced))
        job.network.eval()
        return job.network, (
            f"{learned(done, job)}, weights and {places} activations rounded to 8 bits",
        )
