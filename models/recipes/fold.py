"""Batch norms folded into the convolutions before them (Jacob et al. 2018, arXiv 1712.05877).

Every exporter does this by itself; as a recipe it makes the network what they quantize.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Recipe, RecipeJob
from harness.records import Scalar


@RECIPES.register
class Fold(Recipe):
    """Nothing to choose: a batch norm that is not the only reader of a convolution stays."""

    name = "fold"
    folds = True
    spoils: ClassVar[frozenset[str]] = frozenset({"kmeans", "adaround"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """There are no options."""

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network that cannot be traced."""
        from models.recipes._graph import untraceable

        return untraceable(network)

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Fold in place; the sentence says how many."""
        from models.recipes._folding import fold

        return job.network, (f"folded {fold(job.network)} batch norms into convolutions",)
