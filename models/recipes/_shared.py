"""What recipes leave in a network for those that come after, read from its weights alone.

A weight that is exactly zero was pruned; a layer whose other weights take few values was clustered.
Nothing else is kept, so a checkpoint that was compressed elsewhere is understood too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_VALUES = 256
"""A codebook's index fits a byte."""


class Codebook(NamedTuple):
    """``values`` (k,) float32 ascending, ``indices`` (weights,) uint8 into them."""

    values: NDArray[np.float32]
    indices: NDArray[np.uint8]

    @property
    def bits(self) -> int:
        """Bits that an index takes."""
        return index_bits(len(self.values))


def index_bits(values: int) -> int:
    """Bits of an index into so many values; at least 1."""
    return max(1, (values - 1).bit_length())


def clustered_bytes(weights: int, values: int) -> int:
    """Bytes of packed indices and a float32 codebook for so many weights."""
    return -(-weights * index_bits(values) // 8) + 4 * values


def shares(weights: int, values: int) -> bool:
    """Whether so many weights that are not zero are clustered if they take so many values.

    A value has two weights on average at least, and a codebook pays.
    """
    return 2 * values <= weights and clustered_bytes(weights, values) < 4 * weights


def nonzero(weights: NDArray[np.float32]) -> int:
    """How many are not zero."""
    return int(np.count_nonzero(weights))


def codebook(weight: NDArray[np.float32]) -> Codebook | None:
    """The codebook of a clustered layer's weights; None where they are not clustered."""
    flat = np.ascontiguousarray(weight, np.float32).ravel()
    values, indices = np.unique(flat, return_inverse=True)
    if len(values) > MOST_VALUES or not shares(nonzero(flat), nonzero(values)):
        return None
    return Codebook(values, indices.astype(np.uint8))


def convolutions(network: Any) -> dict[str, Any]:
    """Convolutions and linear layers by name: those whose weights can be compressed."""
    import torch

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    return {name: module for name, module in network.named_modules() if isinstance(module, kinds)}


def pointwise(network: Any) -> dict[str, Any]:
    """The convolutions with 1x1 kernels and no groups, by name."""
    import torch

    return {
        name: module
        for name, module in convolutions(network).items()
        if isinstance(module, torch.nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.groups == 1
    }


def array(module: Any) -> NDArray[np.float32]:
    """A module's weights, sharing their memory."""
    found: NDArray[np.float32] = module.weight.detach().numpy()
    return found
