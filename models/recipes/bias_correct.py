"""Empirical bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2 and appendix D).

Rounded weights shift the mean of a layer's outputs. The shift is measured on calibration images,
layer by layer with everything before already rounded and corrected, and taken off the bias.
Weights stay float: an exporter rounds them. The rounding expected is the preset's, or as the
options say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._scheme import WEIGHT_OPTIONS, weight_scheme, whole


@RECIPES.register
class BiasCorrect(Recipe):
    """Options: how weights will be rounded (`models.recipes._scheme`), and ``images``."""

    name = "bias_correct"
    options: ClassVar[Options] = {**WEIGHT_OPTIONS, "images": 32}
    positional = "preset"
    folds = True
    spoils: ClassVar[frozenset[str]] = frozenset({"kmeans"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for a scheme that does not exist."""
        weight_scheme(self.name, options)
        whole(self.name, "images", options, 1, 1024)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Means are measured on calibration images."""
        return frozenset({"calibration"})

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network that cannot be traced."""
        from models.recipes._graph import untraceable

        return untraceable(network)

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Fold batch norms and correct biases in place."""
        from models.recipes._correcting import correct
        from models.recipes._folding import fold
        from models.recipes._graph import batch_of

        fold(job.network)
        batch = batch_of(job.calibration, int(str(job.options["images"])))
        shifts = correct(job.network, weight_scheme(self.name, job.options), batch)
        return job.network, (
            f"corrected the biases of {len(shifts)} convolutions, by up to {max(shifts):.3g}",
        )
