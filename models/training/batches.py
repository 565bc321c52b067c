"""Batches for one training stage: order, augmentation and targets from the seed alone.

Image number k of a training (counted over all stages) is always the same picture in the same
view, so a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.records import Decoding, ImageSpec, ModelSpec
from models._priors import Size
from models.training.augment import Augmentation, augment
from models.training.matching import match
from models.training.options import Stage, TrainOptions
from models.training.order import Order, repeat_factors
from models.training.store import Images, open_images


class Batch(NamedTuple):
    """``images`` (n, 3, h, w) float32; ``labels`` (n, priors); ``offsets`` (n, priors, 4)."""

    images: Tensor
    labels: Tensor
    offsets: Tensor


class Input(NamedTuple):
    """What the network is fed in one stage; ``priors`` (priors, 4) fit ``size``."""

    size: Size
    close_up: bool
    priors: NDArray[np.float32]


class Feed(NamedTuple):
    """All that decides what a training sees, but for the input size."""

    store: Images
    image: ImageSpec
    decoding: Decoding
    augmentation: Augmentation
    match_iou: float
    seed: int
    order: Order

    def batch(self, first: int, count: int, input_: Input) -> Batch:
        """Images ``first`` to ``first + count - 1`` of the training."""
        priors = input_.priors
        mean = np.asarray(self.image.mean, np.float32)
        std = np.asarray(self.image.std, np.float32)
        images = np.empty((count, *input_.size, 3), np.float32)
        targets = []
        for row in range(count):
            number = first + row
            rng = np.random.Generator(np.random.PCG64((self.seed, 1, number)))
            sample = self.store.sample(self.order.picture(number))
            view = augment(
                sample, input_.size, self.augmentation, self.image, rng, close_up=input_.close_up
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

    def names(self, first: int, count: int) -> list[str]:
        """The pictures that a batch shows, as the data set calls them."""
        return [self.store.name(self.order.picture(first + row)) for row in range(count)]


def make_feed(store: Images, spec: ModelSpec, options: TrainOptions) -> Feed:
    """What a training on ``store`` sees."""
    factors = None
    if options.balance:
        factors = repeat_factors([store.truth(i)[1] for i in range(len(store))], options.balance)
    return Feed(
        store,
        spec.image,
        spec.decoding,
        options.augmentation,
        options.match_iou,
        options.seed,
        Order(len(store), options.seed, factors),
    )


def open_feed(spec: ModelSpec, options: TrainOptions) -> Feed:
    """What the training that ``options`` describe sees; reads the data set where it is new."""
    store = open_images(
        options.data,
        options.data_images,
        Path(options.cache),
        labels=spec.labels,
        workers=options.workers,
        in_memory=options.images_in == "memory",
    )
    return make_feed(store, spec, options)


def stage_size(stage: Stage, image: ImageSpec) -> Size:
    """Height and width of a stage's input, in the proportion of the model's own."""
    return stage.size, round(stage.size * image.width / image.height)


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
