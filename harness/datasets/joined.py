"""Several roots of one layout as one data set: VOC2007 and VOC2012 together, as SSD is trained."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets._files import FileDataset
from harness.errors import BadConfig
from harness.interfaces import Truth


class Joined(FileDataset):
    """The images of ``parts`` one after the other, each called ``<root's name>/<image>``.

    Labels are those of the parts; where the parts know different classes, the union, sorted.

    Args:
        names: a name for each part; equal ones get a number.
        limit: take at most so many images, from the front.
    """

    def __init__(
        self, parts: Sequence[FileDataset], names: Sequence[str], *, limit: int | None = None
    ) -> None:
        if limit is not None and limit < 1:
            raise BadConfig(f"the limit of images is {limit}, expected 1 or more")
        self.name = parts[0].name
        self.split = "+".join(dict.fromkeys(part.split for part in parts))
        self.dropped = tuple(sentence for part in parts for sentence in part.dropped)
        self._parts = parts
        repeated = len(set(names)) < len(names)
        self._names = [f"{name}-{k}" if repeated else name for k, name in enumerate(names, start=1)]
        self._ends = list(accumulate(len(part) for part in parts))
        self._count = min(self._ends[-1], limit or self._ends[-1])
        same = {part.labels for part in parts}
        union = sorted({label for labels in same for label in labels[1:]})
        self.labels = parts[0].labels if len(same) == 1 else ("background", *union)

    def __len__(self) -> int:
        return self._count

    def image_id(self, index: int) -> str:
        """The root's name and the image's."""
        number, place = self._place(index)
        return f"{self._names[number]}/{self._parts[number].image_id(place)}"

    def path(self, index: int) -> Path:
        """The part's own file."""
        number, place = self._place(index)
        return self._parts[number].path(place)

    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """As the part says."""
        number, place = self._place(index)
        return self._parts[number].declared(place)

    def truth(self, index: int) -> Truth:
        """The part's ground truth, with the labels of the whole. Raises BadAnnotation."""
        number, place = self._place(index)
        part = self._parts[number]
        truth = part.truth(place)
        mapped: NDArray[np.int64] = np.array(
            [self.labels.index(label) for label in part.labels], np.int64
        )
        return truth._replace(labels=mapped[truth.labels])

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._count:
            raise IndexError(f"the data set has {self._count} images, no number {index}")
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)
