"""Magnitude pruning of the 1x1 convolutions, at once or while the network is trained.

Which weights go is in `models.recipes._masks`. Gradual pruning follows Zhu & Gupta 2017
(https://arxiv.org/abs/1710.01878): the sparsity grows as 1 - (1 - t)^3 of what is asked over the
first three quarters of the training, and weights that were zeroed may come back until then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.cache import sha256_file
from harness.errors import BadConfig
from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob
from harness.records import Options, Scalar
from harness.registry import suggest
from models.recipes._masks import Wanted, keep, pattern
from models.recipes._shared import array, pointwise
from models.recipes._training import TrainingRecipe, check_training

SCOPES = ("layer", "global")
GROWS, UPDATES = 0.75, 100
"""Part of the training in which the sparsity grows, and in about how many steps it does."""


@RECIPES.register
class Prune(Recipe):
    """Zero the smallest weights of all convolutions with 1x1 kernels and no groups.

    Options:
        sparsity: part of these weights that becomes zero, 0 to 1. None with an N:M pattern or with
            ``layers``, which say it already.
        pattern: ``1x1``, ``4x1``, ``16x1`` (the sum of a block's magnitudes counts; the last block
            of a layer may be shorter), or N:M along the input channels.
        scope: ``layer`` prunes each layer alike, ``global`` ranks the weights of all of them.
        layers: a JSON file, ``{"layers": {name: sparsity}}``; layers that it does not name stay as
            they are. ``layers_sha256`` is filled in, so that another content is another recipe.
        images: so many are trained on while the sparsity grows; 0 prunes at once.
        learning_rate, batch, seed: of that training.
    """

    name = "prune"
    options: ClassVar[Options] = {
        "sparsity": None,
        "pattern": "1x1",
        "scope": "layer",
        "layers": None,
        "layers_sha256": None,
        **TrainingRecipe.options,
        "images": 0,
    }
    positional = "sparsity"
    spoils: ClassVar[frozenset[str]] = frozenset({"adaround", "bias_correct", "qat"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for a sparsity outside 0..1 or options that contradict each other."""
        kind = pattern(str(options["pattern"]))
        sparsity, scope, layers = options["sparsity"], options["scope"], options["layers"]
        if scope not in SCOPES:
            raise BadConfig(f"recipe prune has no scope '{scope}': give {' or '.join(SCOPES)}")
        if options["images"] != 0:
            check_training(self.name, options)
        if kind.of:
            if sparsity is not None or layers is not None or scope == "global":
                raise BadConfig(
                    f"recipe prune with pattern {options['pattern']} keeps {kind.keep} of"
                    f" {kind.of} weights everywhere: leave out sparsity, layers and scope"
                )
            if options["images"] != 0:
                raise BadConfig(
                    f"recipe prune with pattern {options['pattern']} cannot grow: leave out images,"
                    " and train after it, as prune:pattern=2:4+finetune"
                )
        elif layers is not None:
            if sparsity is not None or scope == "global":
                raise BadConfig(
                    f"recipe prune takes the sparsity of each layer from {layers}: leave out"
                    " sparsity and scope"
                )
            _read(Path(str(layers)))
        else:
            _check_sparsity(sparsity, "recipe prune", "prune:0.8")

    def resolved(self, options: Mapping[str, Scalar]) -> Options:
        """With the content of ``layers``. Raises BadConfig where it is not what it was."""
        if options["layers"] is None:
            return dict(options)
        found = sha256_file(Path(str(options["layers"])))[:12]
        if options["layers_sha256"] not in (None, found):
            raise BadConfig(
                f"{options['layers']} is not what it was when this recipe was written (SHA-256"
                f" {found}, not {options['layers_sha256']}): leave out layers_sha256"
            )
        return {**options, "layers_sha256": found}

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Images to train on where it is gradual."""
        return frozenset({"training"}) if options["images"] else frozenset()

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """No such convolution, or none of a name that the file of layers has."""
        layers = pointwise(network)
        if not layers:
            return "it has no convolution with a 1x1 kernel"
        for name in _read(Path(str(options["layers"]))) if options["layers"] else ():
            if name not in layers:
                return f"it has no 1x1 convolution '{name}', {suggest(name, layers)}"
        return None

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Prune in place; the sentences say how sparse the layers became."""
        wanted = _wanted(job)
        layers = {n: m for n, m in pointwise(job.network).items() if n in wanted.sparsity}
        said = []
        if job.options["images"]:
            said.append(_gradually(job, layers, wanted))
        else:
            for name, kept in keep(_matrices(layers), wanted).items():
                array(layers[name])[~kept] = 0
        sparse = {
            name: 1 - np.count_nonzero(array(m)) / array(m).size for name, m in layers.items()
        }
        sizes = {name: array(module).size for name, module in layers.items()}
        total = round(sum(sparse[name] * sizes[name] for name in layers))
        size = sum(sizes.values())
        said.append(
            f"pruned {total} of {size} weights of {len(layers)} pointwise convolutions"
            f" ({total / size:.1%}), {min(sparse.values()):.1%} to {max(sparse.values()):.1%}"
            " a layer"
        )
        return job.network, tuple(said)


def _gradually(job: RecipeJob, layers: Mapping[str, Any], wanted: Wanted) -> str:
    """Train while more and more weights are zeroed; answers how that went."""
    import torch

    from models.recipes._holding import Mask, held, learned, put, take, tune

    steps = -(-int(job.options["images"] or 0) // int(job.options["batch"] or 0))
    grown = max(1, round(GROWS * steps))
    every = max(1, grown // UPDATES)
    masks: dict[str, Any] = {}

    def zero(factor: float) -> None:
        trained = {n: m.parametrizations.weight.original.detach() for n, m in layers.items()}
        matrices = {name: weight.numpy()[:, :, 0, 0] for name, weight in trained.items()}
        for name, kept in keep(matrices, wanted.scaled(factor)).items():
            masks[name].kept.copy_(torch.from_numpy(kept)[:, :, None, None])

    def after_step(step: int) -> None:
        if step <= grown and (step % every == 0 or step == grown):
            zero(1 - (1 - step / grown) ** 3)

    for name, module in layers.items():
        masks[name] = Mask(torch.ones_like(module.weight, dtype=torch.bool))
        put(module, masks[name])
    try:
        with held(job.network, but=layers):
            done = tune(job, after_step=after_step)
    finally:
        for module in layers.values():
            take(module)
    return f"{learned(done, job)} while the sparsity grew"


def _wanted(job: RecipeJob) -> Wanted:
    options = job.options
    if options["layers"] is not None:
        sparsity = _read(Path(str(options["layers"])))
    else:
        sparsity = dict.fromkeys(pointwise(job.network), float(options["sparsity"] or 0))
    return Wanted(pattern(str(options["pattern"])), sparsity, options["scope"] == "global")


def _matrices(layers: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Weights as (outputs, inputs)."""
    return {name: array(module)[:, :, 0, 0] for name, module in layers.items()}


def _read(path: Path) -> dict[str, float]:
    """The sparsities in a file of layers. Raises BadConfig."""
    try:
        layers = json.loads(path.read_text(encoding="utf-8"))["layers"]
        found = dict(layers.items())
    except OSError as error:
        raise BadConfig(f"file of layers {path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadConfig(
            f'{path} does not say how sparse layers shall be: expected {{"layers": {{name: 0.8}}}},'
            " as  detbench sensitivity  writes it"
        ) from None
    if not found:
        raise BadConfig(f"{path} names no layer: nothing would be pruned")
    for name, sparsity in found.items():
        _check_sparsity(sparsity, f"layer {name} in {path}", "0.8")
    return found


def _check_sparsity(sparsity: object, who: str, example: str) -> None:
    number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if not number or not 0 <= float(sparsity) <= 1:  # type: ignore[arg-type]  # a number
        raise BadConfig(f"{who} got sparsity {sparsity!r}: give a number from 0 to 1, as {example}")
