"""Which weights of a pointwise convolution stay, by magnitude: single ones, blocks or N of M.

Papers: Han et al. 2015 (https://arxiv.org/abs/1506.02626); blocks as in Elsen et al. 2020, "Fast
Sparse ConvNets" (https://arxiv.org/abs/1911.09723); N:M as in Mishra et al. 2021
(https://arxiv.org/abs/2104.08378). Nothing is random: of equal magnitudes the later ones go first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadConfig


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


class Wanted(NamedTuple):
    """How much of each layer shall be zero, 0 to 1; with ``ranked`` of all layers together."""

    pattern: Pattern
    sparsity: Mapping[str, float]
    ranked: bool = False

    def scaled(self, factor: float) -> Wanted:
        """The same with ``factor`` times the sparsity."""
        return self._replace(sparsity={name: factor * s for name, s in self.sparsity.items()})


def keep(
    weights: Mapping[str, NDArray[np.float32]], wanted: Wanted
) -> dict[str, NDArray[np.bool_]]:
    """Which weights of each layer, (outputs, inputs), stay."""
    kind = wanted.pattern
    if kind.of:
        return {name: _n_of_m(weight, kind) for name, weight in weights.items()}
    scores = {name: _blocks(np.abs(weight), kind.rows) for name, weight in weights.items()}
    if not wanted.ranked:
        stays = {name: _largest(score, wanted.sparsity[name]) for name, score in scores.items()}
    else:
        (sparsity,) = set(wanted.sparsity.values())
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
