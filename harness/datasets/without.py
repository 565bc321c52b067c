"""A split less what is in another one: published splits share images more often than one hopes."""

from __future__ import annotations

from pathlib import Path

from harness.datasets import WITHOUT
from harness.datasets._files import FileDataset
from harness.datasets.alike import common
from harness.errors import BadConfig
from harness.interfaces import Truth

LEFT_OUT = f"voc:/path:train{WITHOUT}val"
"""How it is written, for a sentence that advises it."""


class Without(FileDataset):
    """The images of ``data`` whose files are not, byte for byte, in ``other``.

    Args:
        limit: take at most so many images, from the front.

    Raises:
        BadConfig: nothing is left.
    """

    def __init__(self, data: FileDataset, other: FileDataset, limit: int | None = None) -> None:
        self.name, self.labels = data.name, data.labels
        self.split = f"{data.split}{WITHOUT}{other.split}"
        self._data = data
        doubles = set(common(other, range(len(other)), data))
        kept = [index for index in range(len(data)) if data.image_id(index) not in doubles]
        if not kept:
            raise BadConfig(
                f"every image of split '{data.split}' is in '{other.split}' as well: nothing is"
                f" left of {self.split}"
            )
        self._kept = kept[:limit]
        self.dropped = data.dropped

    def __len__(self) -> int:
        return len(self._kept)

    def image_id(self, index: int) -> str:
        """As in the whole split."""
        return self._data.image_id(self._kept[index])

    def path(self, index: int) -> Path:
        """As in the whole split."""
        return self._data.path(self._kept[index])

    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """As in the whole split."""
        return self._data.declared(self._kept[index])

    def truth(self, index: int) -> Truth:
        """As in the whole split. Raises BadAnnotation."""
        return self._data.truth(self._kept[index])
