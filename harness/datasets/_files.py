"""What data sets of picture files share: reading the picture, and checking ground truth."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.cache import sha256_file
from harness.errors import BadAnnotation, BadConfig, BadImage
from harness.images import image_size, load_image
from harness.interfaces import Dataset

T = TypeVar("T")
SLACK = 1.0
"""Pixels that a box may reach outside its image: annotation tools round."""


class FileDataset(Dataset):
    """Pictures in files. Image names are `image_id`s, digests are of the files' bytes."""

    @abstractmethod
    def path(self, index: int) -> Path:
        """The picture's file, there or not."""

    @abstractmethod
    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """Where the annotation of the image stands, and the (width, height) that it declares."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB pixels.

        Raises:
            BadImage: missing or unreadable.
            BadAnnotation: of another size than the annotation says, so the boxes cannot fit.
        """
        where, size = self.declared(index)
        pixels = load_image(self.path(index), size)
        height, width = pixels.shape[:2]
        if size is not None and size != (width, height):
            raise BadAnnotation(
                f"{where} declares {size[0]}x{size[1]} pixels, but image {self.path(index)} has"
                f" {width}x{height} when upright: correct one of them"
            )
        return pixels

    def encoded(self, index: int) -> bytes:
        """The file's bytes. Raises BadImage."""
        return self._file(index, Path.read_bytes)

    def digest(self, index: int) -> str:
        """SHA-256 of the file's bytes. Raises BadImage."""
        return self._file(index, sha256_file)

    def _file(self, index: int, read: Callable[[Path], T]) -> T:
        try:
            return read(self.path(index))
        except OSError as error:
            raise BadImage(
                f"image {self.path(index)} cannot be read ({error.strerror}):"
                " restore it or take it off the list"
            ) from None

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels: the declared one, else the picture's. Raises BadImage."""
        _, size = self.declared(index)
        if size is None:
            size = image_size(self.path(index))
        return size


def check_box(edges: Sequence[float], size: tuple[int, int], where: str) -> None:
    """Refuse a box, ``(xmin, ymin, xmax, ymax)`` in pixels, that cannot be true.

    A box may reach `SLACK` outside the image, as rounding has it, and is then kept as it stands.

    Raises:
        BadAnnotation: not finite, empty or inverted, or outside the image.
    """
    xmin, ymin, xmax, ymax = edges
    shown = "(" + ", ".join(f"{edge:g}" for edge in edges) + ")"
    if not all(math.isfinite(edge) for edge in edges):
        raise BadAnnotation(f"{where} has the box {shown}, which is not finite: correct it")
    if xmax <= xmin or ymax <= ymin:
        raise BadAnnotation(
            f"{where} has the box {shown} as (xmin, ymin, xmax, ymax), which holds no pixel:"
            " correct or delete it"
        )
    width, height = size
    if min(xmin, ymin) < -SLACK or xmax > width + SLACK or ymax > height + SLACK:
        raise BadAnnotation(
            f"{where} has the box {shown} as (xmin, ymin, xmax, ymax), which reaches outside its"
            f" image of {width}x{height} pixels: correct it"
        )


class Faults:
    """What is wrong with annotations as a whole: raised, or kept as sentences where allowed."""

    def __init__(self, *, skip: bool) -> None:
        self._skip = skip
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Note a fault. Raises BadAnnotation where bad entries are not left out."""
        if not self._skip:
            raise BadAnnotation(sentence)
        self.sentences.append(sentence)


def first(items: Sequence[str], limit: int | None) -> list[str]:
    """At most ``limit`` items from the front.

    Raises:
        BadConfig: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise BadConfig(f"the limit of images is {limit}, expected 1 or more")
    return list(items[:limit])
