"""Pre-training of the backbone: naming single objects, cut out of the training images.

A cut-out of 64 pixels costs a small part of a whole image and holds nothing but an object at about
the size that it has at the detector's own input, so the backbone learns to tell the classes apart
several times faster than through the detector's loss. The linear heads used here are thrown away.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models._ssd import Ssd
from models.training.augment import Sample, View, look, mirror, recolour
from models.training.batches import Feed
from models.training.options import Pretrain
from models.training.rates import learning_rate


class Namer(nn.Module):
    """A linear head on the mean of each backbone map: ``(n, 3, h, w)`` to a list of logits."""

    def __init__(self, network: Ssd) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            blank = torch.zeros(1, 3, 64, 64, device=next(network.parameters()).device)
            maps, _ = network.eval().backbone(blank)
        network.train()
        self.heads = nn.ModuleList(nn.Linear(found.shape[1], network.classes) for found in maps)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, _ = self.network.backbone(x)
        pairs = zip(self.heads, maps, strict=True)
        return [head(found.mean((2, 3))) for head, found in pairs]


def cut_out(sample: Sample, feed: Feed, how: Pretrain, rng: Generator) -> tuple[View, int]:
    """A view around a random object of ``sample`` and its label; some of its surroundings show."""
    chosen = int(rng.integers(len(sample.boxes)))
    low, high = sample.boxes[chosen, :2].astype(float), sample.boxes[chosen, 2:].astype(float)
    side = (high - low).max() * rng.uniform(1.05, how.margin, 2)
    centre = (low + high) / 2 + rng.uniform(-0.15, 0.15, 2) * (high - low)
    window: NDArray[np.float64] = np.concatenate([centre - side / 2, centre + side / 2])
    view = look(sample, window, (how.size, how.size), feed.image)
    if rng.random() < feed.augmentation.mirror:
        view = mirror(view)
    pixels = recolour(view.pixels, feed.augmentation, rng)
    return view._replace(pixels=pixels), int(sample.labels[chosen])


def cut_outs(feed: Feed, how: Pretrain, first: int) -> tuple[Tensor, Tensor]:
    """A batch, ``(n, 3, size, size)`` float32 and ``(n,)`` int64, decided by the seed alone."""
    mean, std = (np.asarray(part, np.float32) for part in (feed.image.mean, feed.image.std))
    images = np.empty((how.batch, how.size, how.size, 3), np.float32)
    labels = np.empty(how.batch, np.int64)
    for row in range(how.batch):
        number = first + row
        rng = np.random.Generator(np.random.PCG64((feed.seed, 2, number)))
        sample = feed.store.sample(feed.order.picture(number))
        while not len(sample.boxes):
            sample = feed.store.sample(int(rng.integers(len(feed.store))))
        view, labels[row] = cut_out(sample, feed, how, rng)
        images[row] = (view.pixels - mean) / std
    if feed.image.channel_order == "bgr":
        images = images[..., ::-1].copy()
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


def pretrain(network: Ssd, feed: Feed, how: Pretrain) -> float:
    """Train ``network``'s backbone in place.

    Returns:
        Share of the cut-outs of the last tenth that the deepest map named correctly.
    """
    device = next(network.parameters()).device
    namer = Namer(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs know no device with memory_format
    learned = [*network.base_net.parameters(), *namer.heads.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=how.learning_rate, weight_decay=0.02, fused=True)
    count = max(how.images // how.batch, 1)
    right: list[float] = []
    bar = tqdm(range(count), desc="naming cut-outs", unit="step", mininterval=1.0)
    for step in bar:
        images, labels = (part.to(device) for part in cut_outs(feed, how, step * how.batch))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(how.learning_rate, step / count, warmup=0.05, final=0.05)
        answers = namer(images)
        loss = torch.stack([functional.cross_entropy(answer, labels) for answer in answers]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimizer.step()
        right.append(float((answers[-1].argmax(1) == labels).float().mean()))
        bar.set_postfix_str(f"right {np.mean(right[-50:]):.3f}", refresh=False)
    return float(np.mean(right[-max(count // 10, 1) :]))
