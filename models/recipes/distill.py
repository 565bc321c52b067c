"""A short training in which a larger detector teaches the network, beside the labels.

Papers and losses: `models.training.distill`. Like ``finetune`` it keeps pruned zeros and shared
weights, so it repairs a pruned network with its own float weights as the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness import weights
from harness.errors import BadConfig
from harness.plan import static_options
from harness.recipe_interface import RECIPES, RecipeJob
from harness.records import Options, Scalar
from harness.requests import complete, parse
from models.recipes._training import TrainingRecipe


@RECIPES.register
class Distillation(TrainingRecipe):
    """Train on with a teacher that has the same priors and classes.

    Options, besides those of `TrainingRecipe`:
        teacher: its model, as ``mb2_ssd_lite`` or ``etinynet_ssd_lite:width=1.0``.
        weights: its checkpoint: ``shipped``, a path or a published name. ``weights_sha256`` is
            filled in, so that other weights are another recipe.
        share: of the teacher in the class loss, 0 to 1; the labels have the rest.
        temperature: softens both sides' scores; 1 leaves them.
    """

    name = "distill"
    options: ClassVar[Options] = {
        **TrainingRecipe.options,
        "teacher": "",
        "weights": "shipped",
        "weights_sha256": None,
        "share": 0.5,
        "temperature": 2.0,
    }
    positional = "teacher"

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for numbers that cannot be, or without a teacher."""
        super().check(options)
        if not options["teacher"]:
            raise BadConfig("recipe distill has no teacher: give one, as distill:mb2_ssd_lite")
        share, temperature = options["share"], options["temperature"]
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise BadConfig(f"recipe distill got share {share!r}: give a number from 0 to 1")
        if not isinstance(temperature, int | float) or temperature <= 0:
            raise BadConfig(f"recipe distill got temperature {temperature!r}: give more than 0")

    def resolved(self, options: Mapping[str, Scalar]) -> Options:
        """With the content of ``weights``.

        Raises:
            BadCheckpoint: there are none.
            BadConfig: they are not what they were.
        """
        request = parse(str(options["teacher"]))
        given = complete(request.options, static_options(request.name), f"model {request.name}")
        found = weights.find(request.name, given, str(options["weights"]), None).sha256[:12]
        if options["weights_sha256"] not in (None, found):
            raise BadConfig(
                f"weights {options['weights']} of the teacher are not what they were when this"
                f" recipe was written (SHA-256 {found}, not {options['weights_sha256']}): leave out"
                " weights_sha256"
            )
        return {**options, "weights_sha256": found}

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Train in place; the sentence says how the loss went."""
        from models.recipes._holding import held, learned, tune
        from models.training import Distill

        options = job.options
        how = Distill(
            teacher=str(options["teacher"]),
            weights=str(options["weights"]),
            share=float(options["share"] or 0),
            temperature=float(options["temperature"] or 0),
        )
        with held(job.network):
            done = tune(job, distill=how)
        return job.network, (f"{learned(done, job)}, taught by {how.teacher}",)
