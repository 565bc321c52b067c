"""COCO instances: one JSON file for a split, beside a folder of images.

Format: https://cocodataset.org/#format-data (Lin et al., ECCV 2014). A box is ``(x, y, width,
height)`` in continuous pixels. Category ids need not be contiguous: labels are the categories in
the order of their ids, and `Coco.category_ids` keeps the ids. Segments are not read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.datasets._files import Faults, FileDataset, check_box, first
from harness.errors import BadAnnotation, BadConfig, UnknownName
from harness.interfaces import Truth
from harness.registry import suggest

CORRECT = "correct or delete one"
LOOKED_AT = 20  # images that are sought to find their folder


class Picture(msgspec.Struct):
    """An entry of ``images``."""

    id: int
    file_name: str
    width: int
    height: int


class Thing(msgspec.Struct):
    """An entry of ``annotations``; ``difficult`` is ours, other readers pass over it."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float | None = None
    iscrowd: int = 0
    difficult: int = 0


class Category(msgspec.Struct):
    """An entry of ``categories``."""

    id: int
    name: str


class Instances(msgspec.Struct):
    """The whole file."""

    images: list[Picture]
    categories: list[Category]
    annotations: list[Thing]


class Coco(FileDataset):
    """One instances file.

    Args:
        path: the JSON file, or a folder with ``instances*.json`` in it or in ``annotations/``.
        split: which of a folder's files: ``val2017`` means ``instances_val2017.json``.
        limit: take at most so many images, from the front of the list.
        skip_bad: leave out entries that repeat an id or belong to no image; see `dropped`.

    Attributes:
        category_ids: the original id of ``labels[k + 1]`` at ``k``.

    Raises:
        BadConfig: nothing there, or several files and no split.
        UnknownName: no such split.
        BadAnnotation: the file is not an instances file.
    """

    name = "coco"

    def __init__(
        self,
        path: Path | str,
        split: str | None = None,
        *,
        limit: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.file = find_file(Path(path), split)
        self.split = split_name(self.file)
        content = read_instances(self.file)
        faults = Faults(skip=skip_bad)
        pictures: dict[str, Picture] = {}
        for picture in content.images:
            if str(picture.id) in pictures:
                faults.add(f"{self.file} lists image id {picture.id} twice: {CORRECT}")
            pictures.setdefault(str(picture.id), picture)
        if not pictures:
            raise BadAnnotation(f"{self.file} lists no image: correct it")
        categories = sorted(content.categories, key=lambda category: category.id)
        self.category_ids = tuple(category.id for category in categories)
        self.labels = ("background", *(category.name for category in categories))
        if len(set(self.category_ids)) < len(categories):
            raise BadAnnotation(f"{self.file} lists a category id twice: correct it")
        self._label_of = {key: label for label, key in enumerate(self.category_ids, start=1)}
        self.images = find_images(self.file, self.split, content.images)
        self._pictures = [pictures[key] for key in first(list(pictures), limit)]
        self._things: dict[int, list[Thing]] = {picture.id: [] for picture in content.images}
        seen: set[int] = set()
        for thing in content.annotations:
            if thing.image_id not in self._things:
                faults.add(
                    f"{self.file}, annotation {thing.id} is of image {thing.image_id}, which the"
                    " file does not list: correct or delete it"
                )
            elif thing.id in seen:
                faults.add(f"{self.file} lists annotation id {thing.id} twice: {CORRECT}")
            else:
                self._things[thing.image_id].append(thing)
            seen.add(thing.id)
        self.dropped = tuple(faults.sentences)

    def __len__(self) -> int:
        return len(self._pictures)

    def image_id(self, index: int) -> str:
        """The id in the file, as text."""
        return str(self._pictures[index].id)

    def path(self, index: int) -> Path:
        """The image folder's file of that name."""
        return self.images / self._pictures[index].file_name

    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """The entry in ``images``, and its size."""
        picture = self._pictures[index]
        return f"{self.file}, image {picture.id}", (picture.width, picture.height)

    def truth(self, index: int) -> Truth:
        """Boxes as edges; ``area`` is the file's, else the box's.

        Raises:
            BadAnnotation: an impossible box, or an unknown category.
        """
        picture = self._pictures[index]
        things = self._things[picture.id]
        boxes, labels, areas = [], [], []
        for thing in things:
            where = f"{self.file}, annotation {thing.id} of image {picture.id}"
            if len(thing.bbox) != 4:
                raise BadAnnotation(
                    f"{where} has a bbox of {len(thing.bbox)} numbers, expected 4: correct it"
                )
            x, y, width, height = thing.bbox
            box = (x, y, x + width, y + height)
            check_box(box, (picture.width, picture.height), where)
            if thing.category_id not in self._label_of:
                raise BadAnnotation(
                    f"{where} is of category {thing.category_id}, which the file does not list:"
                    " correct or delete it"
                )
            boxes.append(box)
            labels.append(self._label_of[thing.category_id])
            areas.append(width * height if thing.area is None else thing.area)
        return Truth(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array([thing.difficult for thing in things], np.bool_),
            np.array([thing.iscrowd for thing in things], np.bool_),
            np.array(areas, np.float64),
        )


def split_name(file: Path) -> str:
    """``val2017`` of ``instances_val2017.json``; ``all`` of ``instances.json``."""
    return file.stem.removeprefix("instances").lstrip("_-") or "all"


def find_file(path: Path, split: str | None) -> Path:
    """The instances file meant. Raises BadConfig and UnknownName."""
    if path.is_file():
        if split is not None:
            raise BadConfig(f"{path} is one file and has no split '{split}': leave the split out")
        return path
    places = (path, path / "annotations")
    found = {split_name(f): f for place in places for f in sorted(place.glob("instances*.json"))}
    if not found:
        raise BadConfig(
            f"{path} has no instances*.json in it or in its folder annotations:"
            " give the path of a COCO folder or of its JSON file"
        )
    if split is not None and split not in found:
        raise UnknownName(f"{path} has no split '{split}': {suggest(split, found)}")
    if split is None and len(found) > 1:
        raise BadConfig(f"{path} has several splits: add one of :{', :'.join(sorted(found))}")
    return found[split] if split is not None else next(iter(found.values()))


def find_images(file: Path, split: str, pictures: list[Picture]) -> Path:
    """The folder of the images: the first likely one that holds one of the first images.

    Raises:
        BadConfig: none does.
    """
    roots = [file.parent, file.parent.parent]
    places = [
        root / name
        for root in roots
        for name in (split, f"images/{split}", "images", "JPEGImages", "")
    ]
    for place in places:
        if any((place / picture.file_name).is_file() for picture in pictures[:LOOKED_AT]):
            return place
    raise BadConfig(
        f"no image of {file} was found in {', '.join(str(place) for place in places)}:"
        " put the images into one of these folders"
    )


def read_instances(file: Path) -> Instances:
    """Decode the file.

    Python's own JSON writer writes NaN, which is no JSON: such a file is read the slow way, so
    that the box in question can be named.

    Raises:
        BadAnnotation: unreadable, no JSON, or of another form.
    """
    try:
        data = file.read_bytes()
        try:
            return msgspec.json.decode(data, type=Instances)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            lenient: Any = json.loads(data)
            return msgspec.convert(lenient, Instances)
    except OSError as error:
        raise BadAnnotation(f"{file} cannot be read ({error.strerror}): restore it") from None
    except msgspec.ValidationError as error:
        raise BadAnnotation(
            f"{file} is not a COCO instances file ({error}): expected images, categories and"
            " annotations as on cocodataset.org"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadAnnotation(f"{file} is not valid JSON ({error}): restore it") from None
