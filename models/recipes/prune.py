"""Magnitude pruning of the 1x1 convolutions, in one shot: the smallest weights become zero.

Papers: Han et al. 2015 (https://arxiv.org/abs/1506.02626); blocks as in Elsen et al. 2020, "Fast
Sparse ConvNets" (https://arxiv.org/abs/1911.09723); N:M as in Mishra et al. 2021
(https://arxiv.org/abs/2104.08378).

Nothing is random: of equal magnitudes the later ones are pruned first. No weight is trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadConfig
from harness.recipe_interface import RECIPES, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._shared import array, pointwise

SCOPES = ("layer", "global")


class Pattern(NamedTuple):
    """``rows`` output channels are pruned together, or ``keep`` of each ``of`` inputs are kept."""

    rows: int = 1
    keep: int = 0
    of: int = 0


def pattern(text: str) -> Pattern:
    """Read ``1x1``, ``4x1``, ``16x1`` or ``2:4``. Raises BadConfig."""
    if found := re.fullmatch(r"(\d+)x1", text):
        if int(found[1]) in (1, 2, 4, 8, 16):
            return Pattern(rows=int(found[1]))
    elif (found := re.fullmatch(r"(\d+):(\d+)", text)) and 0 < int(found[1]) < int(found[2]) <= 64:
        return Pattern(keep=int(found[1]), of=int(found[2]))
    raise BadConfig(
        f"recipe prune has no pattern '{text}': give 1x1 (single weights), 2x1, 4x1, 8x1 or 16x1"
        " (so many output channels at once), or N:M with N below M, such as 2:4"
    )


@RECIPES.register
class Prune(Recipe):
    """Zero the smallest weights of all convolutions with 1x1 kernels and no groups.

    Options:
        sparsity: part of these weights that becomes zero, 0 to 1. None with an N:M pattern,
            which says it already.
        pattern: ``1x1``, ``4x1``, ``16x1`` (the sum of a block's magnitudes counts; the last block
            of a layer may be shorter), or N:M along the input channels.
        scope: ``layer`` prunes each layer alike, ``global`` ranks the weights of all of them.
    """

    name = "prune"
    options: ClassVar[Options] = {"sparsity": None, "pattern": "1x1", "scope": "layer"}
    positional = "sparsity"

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for a sparsity outside 0..1 or options that contradict each other."""
        kind = pattern(str(options["pattern"]))
        sparsity, scope = options["sparsity"], options["scope"]
        if scope not in SCOPES:
            raise BadConfig(f"recipe prune has no scope '{scope}': give {' or '.join(SCOPES)}")
        if kind.of:
            if sparsity is not None or scope == "global":
                raise BadConfig(
                    f"recipe prune with pattern {options['pattern']} keeps {kind.keep} of"
                    f" {kind.of} weights everywhere: leave out sparsity and scope"
                )
            return
        number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
        if not number or not 0 <= float(sparsity) <= 1:  # type: ignore[arg-type]  # a number
            raise BadConfig(
                f"recipe prune got sparsity {sparsity!r}: give a number from 0 to 1, as prune:0.8"
            )

    def unsupported(self, network: Any, options: Mapping[str, Scalar]) -> str | None:
        """A network without such convolutions has nothing to prune."""
        return None if pointwise(network) else "it has no convolution with a 1x1 kernel"

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Prune in place; the sentences say how sparse the layers became."""
        layers = pointwise(job.network)
        weights = {n: array(m)[:, :, 0, 0] for n, m in layers.items()}
        masks = keep(weights, job.options)
        for name, module in layers.items():
            array(module)[~masks[name]] = 0
        zeros = {name: 1 - mask.mean() for name, mask in masks.items()}
        total = sum((~mask).sum() for mask in masks.values())
        size = sum(mask.size for mask in masks.values())
        return job.network, (
            f"pruned {total} of {size} weights of {len(layers)} pointwise convolutions"
            f" ({total / size:.1%}), {min(zeros.values()):.1%} to {max(zeros.values()):.1%}"
            " a layer",
        )


def keep(
    weights: Mapping[str, NDArray[np.float32]], options: Mapping[str, Scalar]
) -> dict[str, NDArray[np.bool_]]:
    """Which weights of each layer, (outputs, inputs), stay."""
    kind = pattern(str(options["pattern"]))
    if kind.of:
        return {name: _n_of_m(weight, kind) for name, weight in weights.items()}
    sparsity = float(options["sparsity"])  # type: ignore[arg-type]  # `check` saw a number
    scores = {name: _blocks(np.abs(weight), kind.rows) for name, weight in weights.items()}
    if options["scope"] == "layer":
        stays = {name: _largest(score, sparsity) for name, score in scores.items()}
    else:
        flat = _largest(np.concatenate([score.ravel() for score in scores.values()]), sparsity)
        ends = np.cumsum([score.size for score in scores.values()])[:-1]
        parts = np.split(flat, ends)
        stays = {
            name: part.reshape(score.shape)
            for (name, score), part in zip(scores.items(), parts, strict=True)
        }
    return {
        name: np.repeat(stays[name], kind.rows, axis=0)[: len(weight)]
        for name, weight in weights.items()
    }


def _blocks(magnitudes: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """Mean magnitude of ``rows`` neighbouring output channels, (blocks, inputs)."""
    starts = np.arange(0, len(magnitudes), rows)
    sums = np.add.reduceat(magnitudes, starts, axis=0)
    counts = np.minimum(rows, len(magnitudes) - starts).astype(np.float32)
    return np.asarray(sums / counts[:, None], np.float32)


def _largest(scores: NDArray[np.float32], sparsity: float) -> NDArray[np.bool_]:
    """Which scores stay when the ``sparsity`` smallest part goes."""
    stay = scores.size - round(sparsity * scores.size)
    order = np.argsort(-scores.ravel(), kind="stable")
    kept = np.zeros(scores.size, np.bool_)
    kept[order[:stay]] = True
    return kept.reshape(scores.shape)


def _n_of_m(weight: NDArray[np.float32], kind: Pattern) -> NDArray[np.bool_]:
    """The ``keep`` largest of each ``of`` neighbouring inputs; a shorter rest keeps as many."""
    kept = np.zeros(weight.shape, np.bool_)
    for start in range(0, weight.shape[1], kind.of):
        part = np.abs(weight[:, start : start + kind.of])
        order = np.argsort(-part, axis=1, kind="stable")[:, : kind.keep]
        np.put_along_axis(kept[:, start : start + kind.of], order, True, axis=1)
    return kept
