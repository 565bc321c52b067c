"""Open Images boxes: one CSV file for a split, beside a folder of images.

Format: https://storage.googleapis.com/openimages/web/download.html (Kuznetsova et al., IJCV 2020).
Read are the official ``SPLIT-annotations-bbox.csv`` (with ``oidv6-`` before it or not), whose
classes are named in ``class-descriptions-boxable.csv``, and the ``sub-SPLIT-annotations-bbox.csv``
of pytorch-ssd's downloader, which has a column ``ClassName``. Edges are relative to the image,
0..1. A box around a group (``IsGroupOf``) is treated as COCO's crowds are: found or not, it counts
neither way. Depictions, occluded and truncated objects are objects. An image without a box in the
file is not part of the data set, because the file does not name it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.datasets._files import Faults, FileDataset, check_box, first
from harness.errors import BadAnnotation, BadConfig, UnknownName
from harness.interfaces import Truth
from harness.registry import suggest

EDGES = ("XMin", "YMin", "XMax", "YMax")
ENDING = "-annotations-bbox.csv"
PREFIXES = ("oidv6-", "oidv7-", "sub-")
DESCRIPTIONS = "*class-descriptions-boxable.csv"


class Row(NamedTuple):
    """One box: its line in the file, its label (an index), relative edges, and if it is a group."""

    line: int
    label: int
    edges: tuple[float, float, float, float]
    group: bool


class OpenImages(FileDataset):
    """One boxes file.

    Args:
        folder: holds the CSV files, and the images in ``SPLIT/``, ``images/`` or itself.
        split: ``train``, ``validation`` or ``test``; None takes the only one there is.
        limit: take at most so many images, in the file's order.
        skip_bad: leave out lines that cannot be read; see `dropped`.

    Raises:
        BadConfig: nothing there, several splits and none named, or no class descriptions.
        UnknownName: no such split.
        BadAnnotation: a line of the file cannot be true.
    """

    name = "open-images"

    def __init__(
        self,
        folder: Path,
        split: str | None = None,
        *,
        limit: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.split, self.file = find_boxes(folder, split)
        faults = Faults(skip=skip_bad)
        names = _descriptions(folder)
        ids: dict[str, int] = {}
        self._rows: dict[str, list[Row]] = {}
        for line, fields in read_rows(self.file):
            where = f"{self.file}, line {line}"
            name = fields.get("ClassName") or names.get(fields["LabelName"])
            try:
                edges = _edges(fields, where)
                if name is None:
                    raise BadAnnotation(
                        f"{where} is of class {fields['LabelName']}, which no {DESCRIPTIONS[1:]}"
                        f" in {folder} names: fetch that file"
                    )
            except BadAnnotation as error:
                faults.add(str(error))
                continue
            label = ids.setdefault(name, len(ids))
            row = Row(line, label, edges, fields.get("IsGroupOf") == "1")
            self._rows.setdefault(fields["ImageID"], []).append(row)
        if not self._rows:
            raise BadAnnotation(f"{self.file} holds no box: fetch it again")
        self.labels = ("background", *sorted(ids))
        self._label_of = [self.labels.index(name) for name in ids]
        self._names = first(list(self._rows), limit)
        self._folders = [folder / self.split, folder / "images", folder]
        self.dropped = tuple(faults.sentences)

    def __len__(self) -> int:
        return len(self._names)

    def image_id(self, index: int) -> str:
        """The file's ``ImageID``."""
        return self._names[index]

    def path(self, index: int) -> Path:
        """The JPEG in the first of the folders that has it."""
        paths = [folder / f"{self._names[index]}.jpg" for folder in self._folders]
        return next((path for path in paths if path.is_file()), paths[0])

    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """The line of the first box; no size is declared."""
        return f"{self.file}, line {self._rows[self._names[index]][0].line}", None

    def truth(self, index: int) -> Truth:
        """Boxes in pixels of the image. Raises BadImage and BadAnnotation."""
        rows = self._rows[self._names[index]]
        width, height = self.size(index)
        boxes = []
        for row in rows:
            left, top, right, bottom = row.edges
            box = (left * width, top * height, right * width, bottom * height)
            check_box(box, (width, height), f"{self.file}, line {row.line}")
            boxes.append(box)
        return Truth(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array([self._label_of[row.label] for row in rows], np.int64),
            np.zeros(len(rows), np.bool_),
            np.array([row.group for row in rows], np.bool_),
        )


def find_boxes(folder: Path, split: str | None) -> tuple[str, Path]:
    """Name and file of a split. Raises BadConfig and UnknownName."""
    found = all_boxes(folder)
    if not found:
        raise BadConfig(f"{folder} has no SPLIT{ENDING}: give the path of an Open Images folder")
    if split is not None and split not in found:
        raise UnknownName(f"{folder} has no split '{split}': {suggest(split, found)}")
    if split is None and len(found) > 1:
        raise BadConfig(f"{folder} has several splits: add one of :{', :'.join(sorted(found))}")
    chosen = split if split is not None else next(iter(found))
    return chosen, found[chosen]


def all_boxes(folder: Path) -> dict[str, Path]:
    """Boxes file of each split of a folder."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*{ENDING}")):
        name = path.name.removesuffix(ENDING)
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        found.setdefault(name, path)
    return found


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each box.

    Raises:
        BadAnnotation: unreadable, or the columns are others.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            lacking = {"ImageID", "LabelName", *EDGES} - set(rows.fieldnames or ())
            if lacking:
                raise BadAnnotation(
                    f"{path}, line 1 lacks the columns {', '.join(sorted(lacking))}: expected Open"
                    " Images' boxes"
                )
            for fields in rows:
                yield rows.line_num, {key: value or "" for key, value in fields.items() if key}
    except OSError as error:
        raise BadAnnotation(f"{path} cannot be read ({error.strerror}): restore it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadAnnotation(f"{path} is not CSV ({error}): restore it") from None


def read_descriptions(path: Path) -> dict[str, str]:
    """Class id (``/m/01g317``) to its name, from a file with or without a head line."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return {row[0]: row[1] for row in csv.reader(stream) if len(row) >= 2}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadConfig(f"{path} cannot be read ({error}): restore it") from None


def _descriptions(folder: Path) -> dict[str, str]:
    return {
        key: name
        for path in sorted(folder.glob(DESCRIPTIONS))
        for key, name in read_descriptions(path).items()
    }


def _edges(fields: dict[str, str], where: str) -> tuple[float, float, float, float]:
    try:
        xmin, ymin, xmax, ymax = (float(fields[edge]) for edge in EDGES)
    except ValueError:
        shown = ", ".join(f"{edge} {fields[edge]!r}" for edge in EDGES)
        raise BadAnnotation(f"{where} has {shown}, expected numbers: correct it") from None
    if not all(math.isfinite(edge) for edge in (xmin, ymin, xmax, ymax)):
        shown = ", ".join(f"{edge} {fields[edge]}" for edge in EDGES)
        raise BadAnnotation(f"{where} has {shown}, which is not finite: correct it")
    return xmin, ymin, xmax, ymax
