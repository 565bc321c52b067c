"""Images that are in two data sets, under whatever names."""

from __future__ import annotations

from collections.abc import Iterable

from harness.datasets._files import FileDataset
from harness.datasets.shapes import Shapes
from harness.interfaces import Dataset


def common(first: Dataset, indices: Iterable[int], second: Dataset) -> list[str]:
    """Names of the images of ``second`` that are among those of ``indices`` in ``first``.

    Files are compared by their bytes, drawn scenes by name; a file and a scene are never alike.
    """
    if isinstance(first, Shapes) and isinstance(second, Shapes):  # a scene's name says it all
        chosen = {first.image_id(index) for index in indices}
        return sorted(chosen & {second.image_id(index) for index in range(len(second))})
    if not (isinstance(first, FileDataset) and isinstance(second, FileDataset)):
        return []
    sizes: dict[int, list[int]] = {}
    for index in indices:
        sizes.setdefault(_size(first, index), []).append(index)
    found = []
    for index in range(len(second)):
        alike = sizes.get(_size(second, index), [])
        if alike and second.digest(index) in {first.digest(other) for other in alike}:
            found.append(second.image_id(index))
    return found


def _size(data: FileDataset, index: int) -> int:
    """Bytes of the image's file: files of other sizes need not be read."""
    path = data.path(index)
    return path.stat().st_size if path.is_file() else -1
