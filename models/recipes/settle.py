"""Batch norms' statistics counted anew on calibration images, without training.

Pruned or clustered weights answer other means and variances than those that were counted for the
float ones (Li et al. 2020, EagleEye, arXiv 2007.02491), and a checkpoint that averaged
its weights may hold statistics that never were its own (`models.training.settle`). Exporters fold
them away, so this comes before ``fold`` and whatever folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Scalar


@RECIPES.register
class Settle(Recipe):
    """Nothing to choose: all calibration images are shown, in batches of at least `BATCH`."""

    name = "settle"
    spoils: ClassVar[frozenset[str]] = frozenset({"adaround", "bias_correct", "qat"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """There are no options."""

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Statistics are those of calibration images."""
        return frozenset({"calibration"})

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """There is no batch norm, or none is left."""
        from torch.nn.modules.batchnorm import _BatchNorm

        if folded:
            return "recipes before it fold the batch norms that it counts anew: put it before them"
        if not any(isinstance(module, _BatchNorm) for module in network.modules()):
            return "it has no batch norm: leave it out"
        return None

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Count in place; the sentence says over how many images."""
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        from models.training.settle import BATCH, recount

        assert job.calibration is not None  # it says that it needs them
        norms = [module for module in job.network.modules() if isinstance(module, _BatchNorm)]
        images = torch.cat([torch.from_numpy(image) for image in job.calibration()])
        recount(job.network, norms, images.tensor_split(max(1, len(images) // BATCH)))
        return job.network, (
            f"counted the statistics of {len(norms)} batch norms anew on {len(images)} images",
        )
