"""Weight clustering: each layer's weights take at most 2^bits values, which a codebook holds.

Paper: Han et al. 2016, "Deep Compression" (https://arxiv.org/abs/1510.00149), section 3: k-means on
the weights of a layer. In one dimension a cluster is a stretch of the sorted weights, so that a
step of Lloyd's algorithm is a search for the midpoints and a difference of running sums. It starts
from centroids spread by the cube root of the weights' density (Panter & Dite 1951,
https://doi.org/10.1109/JRPROC.1951.230419), which leaves 2 dB less noise at 8 bits than the paper's
even spread. Nothing is random.

The codebooks are trained by a ``finetune`` after it, and written packed beside the export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadConfig
from harness.recipe_interface import RECIPES, Recipe, RecipeJob
from harness.records import Options, Scalar
from models.recipes._shared import array, clustered_bytes, convolutions, nonzero, shares

_STEPS = 300


@RECIPES.register
class KMeans(Recipe):
    """Cluster the weights of every convolution and linear layer that becomes smaller so.

    Options:
        bits: of an index, 2 to 8. Weights that are zero stay zero; where a layer has such
            weights, zero is one of its values.
    """

    name = "kmeans"
    options: ClassVar[Options] = {"bits": 8}
    positional = "bits"
    spoils: ClassVar[frozenset[str]] = frozenset({"adaround", "bias_correct", "qat"})

    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig for bits outside of 2..8."""
        bits = options["bits"]
        if not isinstance(bits, int) or not 2 <= bits <= 8:
            raise BadConfig(f"recipe kmeans got bits {bits!r}: give 2 to 8, as kmeans:5")

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """A network without a layer that becomes smaller has nothing to cluster."""
        if _layers(network, int(options["bits"] or 0)):
            return None
        return "none of its layers has enough weights for a codebook to save space"

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """Cluster in place; the sentence says what that costs in precision and saves in bytes."""
        bits = int(job.options["bits"] or 0)
        layers = _layers(job.network, bits)
        before = after = 0
        noise = signal = 0.0
        for module in layers.values():
            weight = array(module)
            made = cluster(weight.ravel(), bits)
            clustered = made.values[made.indices].reshape(weight.shape)
            noise += float(np.square(clustered - weight, dtype=np.float64).sum())
            signal += float(np.square(weight, dtype=np.float64).sum())
            before += 4 * weight.size
            after += clustered_bytes(weight.size, len(made.values))
            weight[...] = clustered
        ratio = f"{10 * np.log10(signal / noise):.1f} dB" if noise else "no error"
        return job.network, (
            f"clustered {len(layers)} of {len(convolutions(job.network))} layers at {bits} bits:"
            f" weights at {ratio} to those before, {before / 1e6:.2f} MB in float32 and"
            f" {after / 1e6:.2f} MB as packed indices with codebooks",
        )


class Clusters(NamedTuple):
    """``values`` (k,) float32 ascending, ``indices`` (weights,) into them."""

    values: NDArray[np.float32]
    indices: NDArray[np.intp]


def cluster(weights: NDArray[np.float32], bits: int) -> Clusters:
    """At most ``2**bits`` values for ``weights`` (n,), zero kept where it occurs."""
    others = np.sort(weights[weights != 0]).astype(np.float64)
    spare = int(others.size < weights.size)
    centroids = _lloyd(others, min(2**bits - spare, others.size)) if others.size else others
    values = centroids.astype(np.float32)
    if spare:
        values = np.append(values, np.float32(0))
    values = np.unique(values)
    middles = (values[1:].astype(np.float64) + values[:-1]) / 2
    indices = np.searchsorted(middles, weights.astype(np.float64))
    if spare:
        zero = np.searchsorted(values, 0)
        nearest = np.where(weights > 0, zero + 1, zero - 1)  # a weight that was kept stays kept
        kept = (indices == zero) & (weights != 0) & (nearest >= 0) & (nearest < len(values))
        indices = np.where(kept, nearest, indices)
        indices[weights == 0] = zero
    return Clusters(values, indices)


def _lloyd(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Centroids of ``count`` clusters of ``ordered``, ascending; fewer where values coincide."""
    distinct = np.unique(ordered)
    if len(distinct) <= count:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids, ends = _start(ordered, count), np.zeros(0, np.intp)
    for _ in range(_STEPS):
        middles = (centroids[1:] + centroids[:-1]) / 2
        new = np.concatenate([[0], np.searchsorted(ordered, middles), [len(ordered)]])
        new = np.unique(new)  # a cluster without weights is dropped
        if np.array_equal(new, ends):
            break
        ends = new
        centroids = np.diff(sums[ends]) / np.diff(ends)
    return centroids


def _start(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Centroids as dense as the cube root of the weights' own density, the best for many."""
    places = np.linspace(0, 1, min(len(ordered), 8 * count) + 1)
    points = np.quantile(ordered, places)
    shares = np.concatenate([[0.0], np.cumsum(np.cbrt(np.square(np.diff(points))))])
    return np.asarray(np.interp((np.arange(count) + 0.5) / count * shares[-1], shares, points))


def _layers(network: Any, bits: int) -> dict[str, Any]:
    return {
        name: module
        for name, module in convolutions(network).items()
        if shares(nonzero(array(module)), 2**bits)
    }
