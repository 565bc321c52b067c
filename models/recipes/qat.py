"""Quantization-aware training: the network learns with its weights and activations rounded.

Jacob et al. 2018 (arXiv 1712.05877), section 3. Rounding has no gradient of its own: it is passed
through, and stopped where an activation leaves its range (Bengio et al. 2013, arXiv 1308.3432). The
ranges of activations are those of the calibration images before the training, and stay so; the
weights' follow the weights.

What comes out is an ordinary float network whose weights lie on the grid, so that every integer
exporter takes it: with the ``int8`` preset each finds the same weights again, and ranges of
activations by its own calibration. What was trained for another grid is scored by a ``quantsim`` of
the same options behind it. Batch norms must be folded before, as exporters do: ``fold+qat``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, RecipeJob
from harness.records import Options, Scalar
from models.recipes._scheme import (
    ACTIVATION_OPTIONS,
    WEIGHT_OPTIONS,
    activation_scheme,
    weight_scheme,
)
from models.recipes._training import TrainingRecipe


@RECIPES.register
class Qat(TrainingRecipe):
    """Train as `models.recipes._scheme` rounds. Options: its own, and those of `TrainingRecipe`."""

    name = "qat"
    options: ClassVar[Options] = {
        **TrainingRecipe.options,
        "learning_rate": 1e-4,
        "batch": 16,
        **WEIGHT_OPTIONS,
        **ACTIVATION_OPTIONS,
    }
    spoils: ClassVar[frozenset[str]] = frozenset({"kmeans", "adaround", "bias_correct"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for a training or a scheme that cannot be."""
        super().check(options)
        weight_scheme(self.name, options)
        activation_scheme(self.name, options)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Ranges are observed on calibration images."""
        return frozenset({"training", "calibration"})

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network that cannot be traced, or whose batch norms are not folded."""
        from models.recipes._folding import unfolded

        return unfolded(network, folded, "fold them before, as fold+qat")

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Train in place; the sentence says how the loss went."""
        from models.recipes._holding import held, learned, tune
        from models.recipes._quantizing import rounding

        assert job.calibration is not None
        weights = weight_scheme(self.name, job.options)
        activations = activation_scheme(self.name, job.options)
        with (
            held(job.network),
            rounding(job.network, weights, activations, job.calibration()) as (traced, places),
        ):
            done = tune(dataclasses.replace(job, network=traced))
        job.network.eval()
        return job.network, (
            f"{learned(done, job)}, weights rounded to {weights.bits} bits and {places} activations"
            f" to {activations.bits}",
        )
