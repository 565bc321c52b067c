"""A data set of coloured squares: small enough that a tiny network learns it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.writers import write_voc
from harness.images import pixels_digest
from harness.interfaces import Dataset, Truth
from harness.model_file import take

MODEL = """
name: tiny_ssd
backbone: mb1
width: 0.25
size: 64
extras: [32]
priors:
  - {smallest: 12, largest: 18, ratios: [2]}
  - {smallest: 20, largest: 30, ratios: [2]}
  - {smallest: 30, largest: 50, ratios: [2]}
"""
COLOURS = ((220, 30, 30), (30, 200, 60))


class Painted(Dataset):
    """Grey images of 64 pixels with one or two squares, each class in a colour of its own."""

    name = "painted"

    labels = ("background", "square", "star")

    def __init__(self, split: str, count: int) -> None:
        self.split, self._count = split, count

    def __len__(self) -> int:
        return self._count

    def image_id(self, index: int) -> str:
        return f"{self.split}-{index:03d}"

    def image(self, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(index)
        pixels = rng.integers(90, 150, (64, 64, 3)).astype(np.uint8)
        truth = self.truth(index)
        for (xmin, ymin, xmax, ymax), label in zip(
            truth.boxes.astype(int), truth.labels, strict=True
        ):
            pixels[ymin:ymax, xmin:xmax] = COLOURS[label - 1]
        return pixels

    def truth(self, index: int) -> Truth:
        rng = np.random.default_rng((index, len(self.split)))
        count = int(rng.integers(1, 3))
        corner = rng.integers(0, 14, (count, 2)) + np.array([[0, 0], [30, 30]])[:count]
        side = rng.integers(12, 20, (count, 1))
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        labels = rng.integers(1, 3, count).astype(np.int64)
        none = np.zeros(count, np.bool_)
        return Truth(boxes, labels, none, none)

    def digest(self, index: int) -> str:
        return pixels_digest(self.image(index))


def paint(folder: Path, *, train: int = 24, val: int = 8) -> str:
    """Write a train and a val split as a VOC tree; answers its ``voc:/path``."""
    write_voc(Painted("train", train), folder)
    return f"voc:{write_voc(Painted('val', val), folder)}"


def write_tiny_ssd(folder: Path) -> Path:
    """Write a detector of 64 pixels that knows the squares as a model file, and register it."""
    path = folder / "tiny_ssd.yaml"
    path.write_text(MODEL)
    take([str(path)], [])
    return path
