"""What is done to a network before its export: ``prune:0.8``, or a chain with ``+``.

Written like any request, ``name:key=value,…``; a bare value sets the recipe's main option.
``none`` is the empty chain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from harness.errors import BadConfig
from harness.interfaces import RECIPES, RecipeJob
from harness.records import ModelSpec
from harness.requests import Request, complete
from harness.requests import parse as parse_request

NONE = "none"


class Chain(NamedTuple):
    """Recipes in the order in which they are followed, with all their options."""

    steps: tuple[Request, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps)) or NONE

    def apply(self, spec: ModelSpec, network: Any) -> tuple[Any, tuple[str, ...]]:
        """The network that the last recipe answers, and what all of them have to say."""
        said: list[str] = []
        for step in self.steps:
            job = RecipeJob(spec=spec, network=network, options=step.options)
            network, sentences = RECIPES.get(step.name)().apply(job)
            said += sentences
        return network, tuple(said)


def parse(text: str) -> Chain:
    """Read and check a chain.

    Raises:
        UnknownName: a recipe that does not exist.
        BadConfig: options that it does not have or cannot follow.
    """
    if text.strip() == NONE:
        return Chain(())
    return Chain(tuple(_step(part) for part in text.split("+")))


def _step(text: str) -> Request:
    name, colon, tail = text.strip().partition(":")
    first = tail.partition(",")[0]
    recipe = RECIPES.get(name)
    if colon and "=" not in first:
        if recipe.positional is None:
            raise BadConfig(f"'{first}' in '{text}' is not key=value: write {name}:key=value")
        text = f"{name}:{recipe.positional}={tail}"
    given = parse_request(text)
    options = complete(given.options, recipe.options, f"recipe {name}")
    recipe().check(options)
    return Request(name=name, options=options)
