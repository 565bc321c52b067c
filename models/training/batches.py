"""Batches for one training stage: order, augmentation and targets from the seed alone.

Image number k of a training (counted over all stages) is always the same picture in the same
view, so a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.records import Decoding, ImageSpec
from models.training.augment import Augmentation, augment
from models.training.matching import match
from models.training.store import ImageStore


class Batch(NamedTuple):
    """``images`` (n, 3, size, size) float32; ``labels`` (n, priors); ``offsets`` (n, priors, 4)."""

    images: Tensor
    labels: Tensor
    offsets: Tensor


class Input(NamedTuple):
    """What the network is fed in one stage; ``priors`` (priors, 4) fit ``size``."""

    size: int
    close_up: bool
    priors: NDArray[np.float32]


class Feed(NamedTuple):
    """All that decides what a training sees, but for the input size."""

    store: ImageStore
    image: ImageSpec
    decoding: Decoding
    augmentation: Augmentation
    match_iou: float
    seed: int

    def picture(self, number: int) -> int:
        """Which stored image is shown as image ``number`` of the training."""
        epoch, place = divmod(number, len(self.store))
        return int(_order(self.seed, epoch, len(self.store))[place])

    def batch(self, first: int, count: int, input_: Input) -> Batch:
        """Images ``first`` to ``first + count - 1`` of the training."""
        size, priors = input_.size, input_.priors
        mean = np.asarray(self.image.mean, np.float32)
        std = np.asarray(self.image.std, np.float32)
        images = np.empty((count, size, size, 3), np.float32)
        targets = []
        for row in range(count):
            number = first + row
            rng = np.random.Generator(np.random.PCG64((self.seed, 1, number)))
            sample = self.store.sample(self.picture(number))
            view = augment(
                sample, size, self.augmentation, self.image, rng, close_up=input_.close_up
            )
            images[row] = (view.pixels - mean) / std
            targets.append(match(view.boxes, view.labels, priors, self.decoding, self.match_iou))
        if self.image.channel_order == "bgr":
            images = images[..., ::-1].copy()
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),  # channels last in memory
            torch.from_numpy(np.stack([one.labels for one in targets])),
            torch.from_numpy(np.stack([one.offsets for one in targets])),
        )


def batches(
    feed: Feed, spans: Iterable[tuple[int, int]], input_: Input, ahead: int
) -> Iterator[Batch]:
    """The batches of ``spans`` (first image, count), made ``ahead`` of their use by threads."""
    if ahead == 0:
        for first, count in spans:
            yield feed.batch(first, count, input_)
        return
    waiting: list[Future[Batch]] = []
    with ThreadPoolExecutor(ahead) as pool:
        for first, count in spans:
            waiting.append(pool.submit(feed.batch, first, count, input_))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch shows the stored images."""
    return np.random.Generator(np.random.PCG64((seed, 0, epoch))).permutation(count)
