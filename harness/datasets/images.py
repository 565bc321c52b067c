"""A folder of pictures without ground truth, for latency and for comparing models with each other.

Every picture below the folder counts, in the order of its path. There is nothing to score against:
``labelled`` is False.
"""

from __future__ import annotations

from pathlib import Path

from harness.datasets._files import FileDataset, first
from harness.datasets.voc import SUFFIXES
from harness.errors import BadAnnotation, BadConfig
from harness.interfaces import Truth

KNOWN = {suffix.lower() for suffix in (*SUFFIXES, ".tif", ".tiff", ".gif", ".ppm")}


class Images(FileDataset):
    """The pictures below a folder.

    Args:
        folder: where they lie, at any depth; hidden files are passed over.
        limit: take at most so many, from the front.

    Raises:
        BadConfig: there is none.
    """

    name = "images"
    split = "all"
    labels = ("background",)
    labelled = False

    def __init__(self, folder: Path, *, limit: int | None = None) -> None:
        self.folder = folder
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        names = [name for name in paths if Path(name).suffix.lower() in KNOWN]
        names = [name for name in names if not any(p.startswith(".") for p in name.split("/"))]
        if not names:
            raise BadConfig(
                f"{folder} holds no picture ({', '.join(sorted(KNOWN))}): give the path of a folder"
                " of images"
            )
        self._names = first(names, limit)

    def __len__(self) -> int:
        return len(self._names)

    def image_id(self, index: int) -> str:
        """The path below the folder."""
        return self._names[index]

    def path(self, index: int) -> Path:
        """The picture's file."""
        return self.folder / self._names[index]

    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """Nothing is declared."""
        return str(self.path(index)), None

    def truth(self, index: int) -> Truth:
        """There is none. Raises BadAnnotation."""
        raise BadAnnotation(
            f"{self.folder} has no ground truth: score on a data set that has (voc, coco,"
            " open-images), or measure latency"
        )
