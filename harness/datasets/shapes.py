"""`shapes`: a procedural detection data set, drawn by this file and its ``_shape_*`` parts.

Ten classes, some of which differ by a hole, a notch or a few corners, on textured backgrounds under
changing light, turned, 8 to 70 % of the image's side, overlapping and cut by the border, 1 to 10 an
image. Image ``index`` of a split depends on (`VERSION`, split, index) only, through PCG64, and on
no function whose rounding differs between machines. The splits are disjoint by construction: the
split is part of the seed. Nothing is marked difficult; how boxes are defined: `_shape_scene`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.datasets._shape_cache import Drawn, Entry, ShapeCache
from harness.datasets._shape_scene import NAMES, Scene, scene
from harness.errors import BadConfig, UnknownName
from harness.images import pixels_digest
from harness.interfaces import Dataset, Truth
from harness.registry import suggest

VERSION = 1
"""Part of every seed: raise it when the drawing changes."""
LABELS = ("background", *NAMES)
SPLITS = {"train": (1, 8_000), "val": (2, 1_000), "calibration": (3, 512)}
"""Split to (its number in the seed, its default count)."""
MOST = 10_000_000


class Shapes(Dataset):
    """One split of the drawn data set.

    Args:
        split: ``train``, ``val`` or ``calibration``.
        count: number of images, up to `MOST`; image i is the same whatever the count.
        cached: keep what is drawn on disk, in chunks of 64 images, and read it from there.

    Raises:
        UnknownName: no such split.
        BadConfig: an impossible count.
    """

    name = "shapes"
    labels = LABELS

    def __init__(self, split: str, count: int | None = None, *, cached: bool = False) -> None:
        if split not in SPLITS:
            raise UnknownName(f"shapes has no split '{split}': {suggest(split, SPLITS)}")
        self.split = split
        self._number, default = SPLITS[split]
        self._count = default if count is None else count
        if not 1 <= self._count <= MOST:
            raise BadConfig(f"shapes:{split} count is {count}, expected 1 to {MOST}")
        self._last: tuple[int, Scene] | None = None
        name = f"v{VERSION}-{split}"
        self._cache = ShapeCache(name, self._drawn) if cached else None

    def __len__(self) -> int:
        return self._count

    def image_id(self, index: int) -> str:
        """``shapes-v1-val-0000012``."""
        return f"shapes-v{VERSION}-{self.split}-{index:07d}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB pixels, longest side 320."""
        if self._cache is None:
            return self.scene(index).image
        return self._cache.pixels(self._valid(index))

    def truth(self, index: int) -> Truth:
        """Boxes on whole pixels; none is difficult or a crowd."""
        if self._cache is None:
            drawn = self.scene(index)
            boxes, labels = drawn.boxes, drawn.kinds + 1
        else:
            entry = self._cache.entry(self._valid(index))
            boxes = np.array(entry.boxes, np.float32).reshape(-1, 4)
            labels = np.array(entry.labels, np.int64)
        return Truth(boxes, labels, np.zeros(len(boxes), np.bool_), np.zeros(len(boxes), np.bool_))

    def digest(self, index: int) -> str:
        """SHA-256 of the size and the pixels."""
        if self._cache is None:
            return pixels_digest(self.image(index))
        return self._cache.entry(self._valid(index)).digest

    def scene(self, index: int) -> Scene:
        """The whole scene, masks included; the last one drawn is kept.

        Raises:
            IndexError: not in 0..len - 1.
        """
        return self._scene(self._valid(index))

    def _valid(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"shapes:{self.split} has {self._count} images, no number {index}")
        return index

    def _scene(self, index: int) -> Scene:
        """Draw; a chunk of the cache may reach beyond ``count``."""
        if self._last is None or self._last[0] != index:
            seed = np.random.SeedSequence((VERSION, self._number, index))
            self._last = (index, scene(np.random.Generator(np.random.PCG64(seed))))
        return self._last[1]

    def _drawn(self, index: int) -> Drawn:
        """What the cache keeps of a scene."""
        found = self._scene(index)
        height, width = found.image.shape[:2]
        entry = Entry(
            height=height,
            width=width,
            boxes=found.boxes.astype(int).tolist(),
            labels=(found.kinds + 1).tolist(),
            digest=pixels_digest(found.image),
        )
        return Drawn(entry, found.image)
