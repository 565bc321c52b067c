"""Does training wait for its images? Images per second of each part, one after the other.

    python benchmarks/training.py --models mb2_ssd_lite,etinynet_ssd_lite:width=0.35

For each model and input size:

- **step**: forward, loss, backward and optimizer on one batch that is there already: the ceiling;
- **input**: `models.training.batches` alone on `--workers` threads, with augmentation and targets;
- **train**: the training loop as `detbench train` runs it;
- **plain**: the loop that one writes first: `torch.utils.data.DataLoader` with as many processes,
  which decodes, resizes and matches, without augmentation, and the same step.

The input is not the bottleneck where input is above step. One thread computes the steps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.datasets import open_dataset
from harness.images import Preprocessor, float_input
from harness.interfaces import MODELS
from harness.records import ModelSpec
from harness.requests import parse
from models.training.batches import Batch, Input, batches, make_feed
from models.training.loop import Around, Step, Trainer
from models.training.matching import match
from models.training.options import Stage, TrainOptions
from models.training.store import open_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="mb2_ssd_lite,etinynet_ssd_lite:width=0.35")
    parser.add_argument("--data", default="shapes:train")
    parser.add_argument("--images", type=int, default=256, help="of the data set")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | step | input | train | plain | input / step |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for model in asked.models.split(","):
            request = parse(model)
            labels = open_dataset(asked.data, limit=asked.images).labels
            spec = MODELS.get(request.name)(labels, **request.options)
            rates = Rates(spec, asked, Path(folder))
            step, fed, train, plain = rates.step(), rates.input(), rates.train(), rates.plain()
            figures = " | ".join(f"{rate:.1f}" for rate in (step, fed, train, plain))
            print(f"| {model} | {figures} | {fed / step:.1f} |", flush=True)


class Rates:
    """Images per second of the parts of one training."""

    def __init__(self, spec: ModelSpec, asked: argparse.Namespace, folder: Path) -> None:
        self.spec, self.asked = spec, asked
        self.options = TrainOptions(
            model=spec.name,
            data=asked.data,
            data_images=asked.images,
            stages=(Stage(size=spec.image.height, images=10**6),),
            batch=asked.batch,
            workers=asked.workers,
            cache=str(folder),
        )
        self.store = open_images(asked.data, asked.images, folder, workers=0)
        self.feed = make_feed(self.store, spec, self.options)
        size = (spec.image.height, spec.image.width)
        self.shown = Input(size, False, spec.priors)

    def step(self) -> float:
        """One batch again and again."""
        batch = self.feed.batch(0, self.asked.batch, self.shown)
        return self._stepped(iter(lambda: batch, None))

    def input(self) -> float:
        """Batches that nobody trains on."""
        return self._rate(self._fed(), lambda batch: None)

    def train(self) -> float:
        """Batches of our input, trained on."""
        return self._stepped(self._fed())

    def plain(self) -> float:
        """Batches of a DataLoader, trained on."""
        loader = DataLoader(
            Plain(self.spec, self.asked, self.options.match_iou),
            batch_size=self.asked.batch,
            num_workers=self.asked.workers,
            drop_last=True,
        )

        def endless() -> Iterator[Batch]:
            while True:
                for images, labels, offsets in loader:
                    yield Batch(images, labels, offsets)

        return self._stepped(endless())

    def _fed(self) -> Iterator[Batch]:
        spans = ((first * self.asked.batch, self.asked.batch) for first in range(10**6))
        return batches(self.feed, spans, self.shown, ahead=self.asked.workers)

    def _stepped(self, fed: Iterator[Batch]) -> float:
        trainer = Trainer(self.spec.build(), self.spec, self.options, Around())
        step = Step(0, self.options.stages[0], 0)
        return self._rate(fed, lambda batch: trainer.step(step, batch, done=0.5))

    def _rate(self, fed: Iterator[Batch], work: Callable[[Batch], Any]) -> float:
        """Images per second, after two batches that are not counted."""
        for _ in range(2):
            work(next(fed))
        began, done = time.monotonic(), 0
        while time.monotonic() - began < self.asked.seconds:
            work(next(fed))
            done += self.asked.batch
        return done / (time.monotonic() - began)


class Plain(TorchDataset[Any]):
    """What one writes first: decode, resize, normalise, match."""

    def __init__(self, spec: ModelSpec, asked: argparse.Namespace, match_iou: float) -> None:
        self.spec, self.match_iou = spec, match_iou
        self.data = open_dataset(asked.data, limit=asked.images)
        self.prepare = Preprocessor(spec.image, float_input(spec.image))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        pixels, truth = self.data.image(index), self.data.truth(index)
        scale = np.array([pixels.shape[1], pixels.shape[0]] * 2, np.float32)
        priors, decoding = self.spec.priors, self.spec.decoding
        told = match(truth.boxes / scale, truth.labels, priors, decoding, self.match_iou)
        return self.prepare(pixels)[0], told.labels, told.offsets


if __name__ == "__main__":
    main()
