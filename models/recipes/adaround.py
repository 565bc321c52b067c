"""Adaptive rounding of weights (Nagel et al. 2020, "Up or Down?", arXiv 2004.10568).

Whether a weight is rounded up or down is chosen so that its layer's outputs change least on
calibration images, not the weight itself: the paper's relaxation, its equations 20 to 25, with the
inputs that the layers before it, rounded already, answer. Two things differ: the activation after
the layer is left out of the loss, which then needs the second moments of the inputs alone, not the
images (minutes on two cores, where the paper's takes hours); and an output channel that nearest
rounding serves better keeps it, so that no layer is ever worse.

The layer's bias is as it was. Weights stay float numbers that lie on the grid: an exporter that
chooses the same grid, which the preset says, rounds them to themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._scheme import WEIGHT_OPTIONS, weight_scheme, whole


@RECIPES.register
class AdaRound(Recipe):
    """Options: the grid (`models.recipes._scheme`), ``images``, and ``iterations`` per layer."""

    name = "adaround"
    options: ClassVar[Options] = {**WEIGHT_OPTIONS, "images": 32, "iterations": 300}
    positional = "preset"
    costly = True
    spoils: ClassVar[frozenset[str]] = frozenset({"kmeans"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for a scheme that does not exist."""
        weight_scheme(self.name, options)
        whole(self.name, "images", options, 1, 1024)
        whole(self.name, "iterations", options, 1, 100_000)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Outputs are compared on calibration images."""
        return frozenset({"calibration"})

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network that cannot be traced, or whose batch norms would still change weights."""
        from models.recipes._folding import unfolded

        return unfolded(network, folded, "put fold or equalize before it, as fold+adaround")

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Round in place."""
        from models.recipes._adaptive import round_all
        from models.recipes._graph import batch_of

        errors = round_all(
            job.network,
            weight_scheme(self.name, job.options),
            batch_of(job.calibration, int(str(job.options["images"]))),
            int(str(job.options["iterations"])),
        )
        parts = sorted(error.ours / error.nearest for error in errors if error.nearest)
        return job.network, (
            f"rounded the weights of {len(errors)} convolutions; their squared error is"
            f" {parts[len(parts) // 2]:.0%} of nearest rounding's in the median,"
            f" {parts[-1]:.0%} at most",
        )
