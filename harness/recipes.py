"""What is done to a network before its export: ``prune:0.8``, or a chain with ``+``.

Written like any request, ``name:key=value,…``; a bare value sets the recipe's main option.
``none`` is the empty chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import kept_steps
from harness.errors import BadConfig, Unsupported
from harness.interfaces import EXPORTERS
from harness.recipe_interface import RECIPES, Need, RecipeJob, TrainingImages
from harness.records import ModelSpec
from harness.requests import Request, complete, written
from harness.requests import parse as parse_request

NONE = "none"
COSTLY_LIMIT_S = 6 * 3600.0
"""How long an export may take whose recipes train: it goes on where it was stopped."""


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """What a chain may draw on.

    Attributes:
        calibration: a fresh pass over preprocessed float32 ``(1, 3, h, w)`` images.
        training: images to train on.
        kept: where the results of costly recipes are kept; None keeps nothing.
        identity: tells these images from others, as hex.
    """

    calibration: Callable[[], Iterator[NDArray[np.float32]]] | None = None
    training: TrainingImages | None = None
    kept: Path | None = None
    identity: str = ""


class Chain(NamedTuple):
    """Recipes in the order in which they are followed, with all their options."""

    steps: tuple[Request, ...]

    def __str__(self) -> str:
        """As short as it can be asked for; `parse` makes the same chain of it."""
        return "+".join(map(_text, self.steps)) or NONE

    @property
    def needs(self) -> frozenset[Need]:
        """Which images the recipes ask for."""
        found = (RECIPES.get(step.name)().needs(step.options) for step in self.steps)
        return frozenset[Need]().union(*found)

    @property
    def costly(self) -> bool:
        """A recipe of it takes minutes."""
        return any(_is_costly(step) for step in self.steps)

    def limit_s(self, asked_s: float) -> float:
        """How long an export with these recipes may take, where ``asked_s`` is one's without."""
        return max(asked_s, COSTLY_LIMIT_S) if self.costly else asked_s

    def apply(
        self, spec: ModelSpec, network: Any, supplies: Supplies | None = None
    ) -> tuple[Any, tuple[str, ...]]:
        """The network that the last recipe answers, in eval mode, and what all have to say.

        Raises:
            Unsupported: a recipe does not apply to this network; none was followed.
        """
        folded = False
        for step in self.steps:
            recipe = RECIPES.get(step.name)
            reason = recipe().unsupported(network, step.options, folded=folded)
            if reason is not None:
                raise Unsupported(f"recipe {step.name} does not apply to {spec.name}: {reason}")
            folded = folded or recipe.folds
        said: list[str] = []
        for step in self.steps:
            network, sentences = _follow(step, spec, network, supplies or Supplies())
            said += sentences
        return network.eval(), tuple(said)  # modules that a recipe put in are born in training mode


def parse(text: str) -> Chain:
    """Read and check a chain.

    Raises:
        UnknownName: a recipe that does not exist.
        BadConfig: options that it does not have or cannot follow; an order that makes no sense.
    """
    if text.strip() == NONE:
        return Chain(())
    chain = Chain(tuple(_step(part) for part in text.split("+")))
    _check_order([step.name for step in chain.steps])
    return chain


def _text(step: Request) -> str:
    """The main option, then those that are not at their defaults: ``prune:0.8,scope=global``."""
    recipe = RECIPES.get(step.name)
    given = {key: value for key, value in step.options.items() if value != recipe.options[key]}
    main = recipe.positional or ""
    given.pop(main, None)
    words = [written(step.options[main])] if step.options.get(main) is not None else []
    words += [f"{key}={written(value)}" for key, value in sorted(given.items())]
    return f"{step.name}:{','.join(words)}" if words else step.name


def _step(text: str) -> Request:
    name, colon, tail = text.strip().partition(":")
    first = tail.partition(",")[0]
    if name in EXPORTERS.names():
        raise BadConfig(
            f"{name} in a chain of recipes is an exporter, which comes after all of them: name it"
            f" with --exporters {name}"
        )
    recipe = RECIPES.get(name)
    if colon and "=" not in first:
        if recipe.positional is None:
            raise BadConfig(f"'{first}' in '{text}' is not key=value: write {name}:key=value")
        text = f"{name}:{recipe.positional}={tail}"
    given = parse_request(text)
    options = complete(given.options, recipe.options, f"recipe {name}")
    recipe().check(options)
    return Request(name=name, options=recipe().resolved(options))


def _check_order(names: list[str]) -> None:
    for place, name in enumerate(names):
        for earlier in names[:place]:
            if RECIPES.get(earlier).final:
                raise BadConfig(
                    f"recipe {name} comes after {earlier}, which nothing can follow: put {earlier}"
                    " at the end of the chain"
                )
            if earlier in RECIPES.get(name).spoils:
                raise BadConfig(
                    f"recipe {name} undoes what {earlier} did before it: put {name} before"
                    f" {earlier}"
                )


def _is_costly(step: Request) -> bool:
    recipe = RECIPES.get(step.name)
    return recipe.costly or "training" in recipe().needs(step.options)


def _follow(
    step: Request, spec: ModelSpec, network: Any, supplies: Supplies
) -> tuple[Any, tuple[str, ...]]:
    recipe = RECIPES.get(step.name)()
    needs = recipe.needs(step.options)
    for need in sorted(needs):
        if getattr(supplies, need) is None:
            raise BadConfig(f"recipe {step.name} needs {need} images, and there are none here")

    def work(folder: Path | None) -> tuple[Any, tuple[str, ...]]:
        return recipe.apply(
            RecipeJob(
                spec=spec,
                network=network,
                options=step.options,
                calibration=supplies.calibration if "calibration" in needs else None,
                training=supplies.training if "training" in needs else None,
                folder=folder,
            )
        )

    if not _is_costly(step) or supplies.kept is None:
        return work(None)
    inputs = (spec.name, str(step), supplies.identity if needs else "")
    return kept_steps.once(supplies.kept, inputs, network, work)
