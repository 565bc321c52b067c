"""Which image is shown when: every epoch in an order of its own, from the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Order:
    """The order of ``count`` images. With ``factors``, an image is shown so many times as often.

    An epoch always shows ``count`` images: with factors, they are drawn evenly spaced along the
    sum of the factors from a random start, so none is shown less or more often than its factor
    says by a whole time.
    """

    def __init__(self, count: int, seed: int, factors: NDArray[np.float64] | None = None) -> None:
        self._count, self._seed = count, seed
        self._ends = None if factors is None else np.cumsum(factors) / factors.sum()
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def picture(self, number: int) -> int:
        """Which stored image is shown as image ``number`` of the training."""
        epoch, place = divmod(number, self._count)
        order = self._epochs.get(epoch)
        if order is None:
            order = self._drawn(epoch)
            # threads work on neighbouring batches, so two epochs are in use at most
            self._epochs = {
                **{e: o for e, o in self._epochs.items() if e == epoch - 1},
                epoch: order,
            }
        return int(order[place])

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.Generator(np.random.PCG64((self._seed, 0, epoch)))
        if self._ends is None:
            return rng.permutation(self._count)
        points = (np.arange(self._count) + rng.random()) / self._count
        chosen = np.searchsorted(self._ends, points, side="right")
        return rng.permutation(np.minimum(chosen, self._count - 1))


def repeat_factors(labels: Sequence[NDArray[np.int64]], least: float) -> NDArray[np.float64]:
    """How often each image shall be shown, so that rare classes are seen more (``>= 1``).

    Repeat factor sampling (Gupta et al. 2019, "LVIS", section 4): a class that a share ``f`` of the
    images shows has the factor ``max(1, sqrt(least / f))``; an image has its classes' largest.

    Args:
        labels: the classes in each image, in any order, repeated or not.
    """
    shown = [np.unique(each) for each in labels]
    classes, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *shown]), return_counts=True)
    of_class = dict(zip(classes.tolist(), np.sqrt(least * len(labels) / counts), strict=True))
    return np.array([max([1.0, *(of_class[int(c)] for c in each)]) for each in shown])
