"""Cross-layer equalization and high-bias absorption (Nagel et al. 2019, arXiv 1906.04721).

Channels between two convolutions are scaled so that both use the range of their weights alike,
with one range per tensor the difference between a working network and none. Batch norms are folded
first. Two things differ from the paper:

- ReLU6 does not let a scale pass. The paper replaces it by ReLU (``clip=relu``: another function;
  AIMET leaves such pairs out since version 2.4). Here each channel gets the limit ``6 / s``
  (``clip=channel``), which keeps the function; exports compute a minimum where ReLU6 was fused.
- A high bias is absorbed by what calibration images show, the least value before the activation,
  instead of mean - 3 sigma of the batch norm, and only into convolutions without padding: the
  function stays, on these images to the last bit of rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._scheme import choice

CLIPS = ("channel", "relu")


@RECIPES.register
class Equalize(Recipe):
    """Options: ``clip`` as above; ``absorb``: high biases too, which needs calibration images."""

    name = "equalize"
    options: ClassVar[Options] = {"clip": "channel", "absorb": True}
    positional = "clip"
    folds = True
    spoils: ClassVar[frozenset[str]] = frozenset({"kmeans", "adaround"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for another clip."""
        choice(self.name, "clip", options, CLIPS)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Absorbing looks at images."""
        return frozenset({"calibration"} if options["absorb"] else ())

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network that cannot be traced."""
        from models.recipes._graph import untraceable

        return untraceable(network)

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Fold, scale and absorb in place."""
        from models.recipes._equalizing import absorb, equalize
        from models.recipes._folding import fold
        from models.recipes._graph import batch_of

        folded = fold(job.network)
        done = equalize(job.network, exact=job.options["clip"] == "channel")
        said = [
            f"folded {folded} batch norms and equalised {done.pairs} pairs of convolutions in"
            f" {done.rounds} rounds"
        ]
        if done.clips:
            kind = "a limit for each channel" if job.options["clip"] == "channel" else "ReLU"
            said.append(f"{done.clips} ReLU6 became {kind}")
        if job.options["absorb"]:
            channels = absorb(job.network, batch_of(job.calibration, 16))
            said.append(f"absorbed the bias of {channels} channels into the next convolution")
        return job.network, tuple(said)
