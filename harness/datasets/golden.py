"""An artifact's own golden images: what a bundle times where no data set is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.cache import sha256_bytes
from harness.interfaces import Dataset, Truth


class GoldenImages(Dataset):
    """``(n, height, width, 3)`` uint8 RGB pictures of the network's own size, without truth."""

    name = "golden"
    split = "golden"
    labels = ("background",)
    labelled = False

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def image_id(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        picture: NDArray[Any] = self._images[index]
        return picture

    def truth(self, index: int) -> Truth:
        raise NotImplementedError("golden images have no ground truth, see `labelled`")

    def digest(self, index: int) -> str:
        return sha256_bytes(self._images[index].tobytes())
