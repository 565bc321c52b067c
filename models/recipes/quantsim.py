"""Simulated quantization: a float network that computes as if its numbers were integers.

Jacob et al. 2018, arXiv 1712.05877; the presets are in `models.recipes._scheme`. Weights are
rounded to their grid, and the image and the output of every operation that computes (a convolution
with its activation, an addition, a pooling) to that of its range on calibration images. Biases and
sums stay float. Export it with torch_float and score it like any model: the score is what an
integer export can be expected to reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._scheme import (
    ACTIVATION_OPTIONS,
    WEIGHT_OPTIONS,
    activation_scheme,
    weight_scheme,
)


@RECIPES.register
class QuantSim(Recipe):
    """Options: see `models.recipes._scheme`; ``preset`` gives what is left out."""

    name = "quantsim"
    options: ClassVar[Options] = {**WEIGHT_OPTIONS, **ACTIVATION_OPTIONS}
    positional = "preset"
    final = True

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for a scheme that does not exist."""
        weight_scheme(self.name, options)
        activation_scheme(self.name, options)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Ranges of activations are observed on calibration images."""
        return frozenset({"calibration"})

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network that cannot be traced."""
        from models.recipes._graph import untraceable

        return untraceable(network)

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """A graph with rounded weights, in which activations are rounded as they run."""
        from models.recipes._folding import fold
        from models.recipes._simulating import simulate

        assert job.calibration is not None  # it says that it needs them
        fold(job.network)
        weights = weight_scheme(self.name, job.options)
        activations = activation_scheme(self.name, job.options)
        traced, places = simulate(job.network, weights, activations, job.calibration())
        return traced, (
            f"simulates weights of {weights.bits} bits and {places} activations of"
            f" {activations.bits} bits",
        )
