"""`shapes`: a procedural detection data set, drawn by this file and its ``_shape_*`` parts.

Ten classes, some of which differ by a hole, a notch or a few corners, on textured backgrounds under
changing light, turned, 8 to 70 % of the image's side, overlapping and cut by the border, 1 to 10 an
image. Image ``index`` of a split depends on (`VERSION`, split, index) only, through PCG64, and on
no function whose rounding differs between machines. The splits are disjoint by construction: the
split is part of the seed. Nothing is marked difficult; how boxes are defined: `_shape_scene`.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from harness.datasets._shape_scene import NAMES, Scene, scene
from harness.errors import BadConfig, UnknownName
from harness.interfaces import Dataset, Truth
from harness.registry import suggest

VERSION = 1
"""Part of every seed and every digest: raise it when the drawing changes."""
LABELS = ("background", *NAMES)
SPLITS = {"train": (1, 8_000), "val": (2, 1_000), "calibration": (3, 512)}
"""Split to (its number in the seed, its default count)."""
MOST = 10_000_000


class Shapes(Dataset):
    """One split of the drawn data set.

    Args:
        split: ``train``, ``val`` or ``calibration``.
        count: number of images, up to `MOST`; image i is the same whatever the count.

    Raises:
        UnknownName: no such split.
        BadConfig: an impossible count.
    """

    name = "shapes"
    labels = LABELS

    def __init__(self, split: str, count: int | None = None) -> None:
        if split not in SPLITS:
            raise UnknownName(f"shapes has no split '{split}': {suggest(split, SPLITS)}")
        self.split = split
        self._number, default = SPLITS[split]
        self._count = default if count is None else count
        if not 1 <= self._count <= MOST:
            raise BadConfig(f"shapes:{split} count is {count}, expected 1 to {MOST}")
        self._last: tuple[int, Scene] | None = None

    def __len__(self) -> int:
        return self._count

    def image_id(self, index: int) -> str:
        """``shapes-v1-val-0000012``."""
        return f"shapes-v{VERSION}-{self.split}-{index:07d}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB pixels, longest side 320."""
        return self.scene(index).image

    def truth(self, index: int) -> Truth:
        """Boxes on whole pixels; none is difficult or a crowd."""
        drawn = self.scene(index)
        flags = np.zeros(len(drawn.boxes), np.bool_)
        return Truth(drawn.boxes, drawn.kinds + 1, flags, flags.copy())

    def digest(self, index: int) -> str:
        """SHA-256 of the version, the size and the pixels."""
        pixels = self.image(index)
        head = f"shapes {VERSION} {pixels.shape[0]} {pixels.shape[1]}\n".encode()
        return hashlib.sha256(head + pixels.tobytes()).hexdigest()

    def scene(self, index: int) -> Scene:
        """The whole scene, masks included; the last one drawn is kept.

        Raises:
            IndexError: not in 0..len - 1.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"shapes:{self.split} has {self._count} images, no number {index}")
        if self._last is None or self._last[0] != index:
            seed = np.random.SeedSequence((VERSION, self._number, index))
            self._last = (index, scene(np.random.Generator(np.random.PCG64(seed))))
        return self._last[1]
