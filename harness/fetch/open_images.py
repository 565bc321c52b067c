"""Images of some classes of Open Images, with their boxes in the official form.

The boxes file of a split is fetched whole and kept in the cache (train: 2.3 GB), then read as a
stream; only images with a box of the wanted classes are fetched, from the mirror that Open Images
names. The CSV that is written holds those boxes and no others.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.cache import sha256_text, write_atomic
from harness.datasets.open_images import read_descriptions
from harness.errors import DownloadFailed, UnknownName
from harness.fetch.datasets import finish
from harness.fetch.download import download
from harness.fetch.pictures import Picture, fetch_pictures
from harness.fetch.remote import Remote
from harness.registry import suggest

SPLITS = {
    "train": "v6/oidv6-train-annotations-bbox.csv",
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}
CLASSES = "v7/oidv7-class-descriptions-boxable.csv"


class Mirror(NamedTuple):
    """Where the files and the images lie."""

    files: str = "https://storage.googleapis.com/openimages"
    images: str = "https://open-images-dataset.s3.amazonaws.com"


def fetch_open_images(
    classes: Sequence[str],
    split: str,
    parent: Path,
    *,
    limit: int | None = None,
    quiet: bool = False,
    mirror: Mirror | None = None,
) -> Path:
    """A folder with images of ``split`` that hold one of ``classes``, and their boxes.

    Args:
        classes: names as Open Images writes them, such as ``Traffic light``.
        limit: at most so many images, in the file's order.

    Raises:
        UnknownName: no such split or class.
        DownloadFailed: something could not be fetched; the same call goes on.
        ResultsError: the folder cannot be written.
    """
    if split not in SPLITS:
        raise UnknownName(f"Open Images has no split '{split}': {suggest(split, SPLITS)}")
    where = mirror or Mirror()
    key = sha256_text([split, str(limit), *sorted(classes)])[:8]
    final = parent / f"open-images-{split}-{key}"
    if final.is_dir():
        return final
    kept = parent / ".open-images.files"
    names_file = _file(where, CLASSES, kept, quiet)
    ids = class_ids(read_descriptions(names_file), classes)
    boxes = _file(where, SPLITS[split], kept, quiet)
    head, rows = wanted_rows(boxes, set(ids), limit)
    images = list(dict.fromkeys(row[0] for row in rows))
    staging = parent / f".{final.name}.partial"
    pictures = [
        Picture(f"{where.images}/{split}/{name}.jpg", staging / split / f"{name}.jpg")
        for name in images
    ]
    gone = {picture.path.stem for picture in fetch_pictures(pictures, quiet=quiet)}
    if gone:
        print(f"{len(gone)} images are gone and left out, such as {min(gone)}", file=sys.stderr)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *(r for r in rows if r[0] not in gone)])
    write_atomic(staging / f"{split}-annotations-bbox.csv", text.getvalue().encode())
    shutil.copyfile(names_file, staging / "class-descriptions-boxable.csv")
    finish(staging, final)
    return final


def class_ids(names: dict[str, str], classes: Sequence[str]) -> list[str]:
    """Ids of the classes, whose case does not matter. Raises UnknownName."""
    by_name = {name.lower(): key for key, name in names.items()}
    for wanted in classes:
        if wanted.lower() not in by_name:
            known = suggest(wanted.lower(), by_name) if by_name else "none is known"
            raise UnknownName(f"Open Images has no class '{wanted}': {known}")
    return [by_name[wanted.lower()] for wanted in classes]


def wanted_rows(path: Path, ids: set[str], limit: int | None) -> tuple[list[str], list[list[str]]]:
    """The head of the boxes file, and the lines of the wanted classes in the first images.

    Raises:
        DownloadFailed: the file is no boxes file, or no image holds such a class.
    """
    lines = _lines(path)
    head = next(lines, [])
    if head[:3] != ["ImageID", "Source", "LabelName"]:
        raise DownloadFailed(f"{path} does not begin like Open Images' boxes: delete it")
    images: set[str] = set()
    rows = []
    for row in lines:
        if len(row) > 2 and row[2] in ids:
            if row[0] not in images and limit is not None and len(images) >= limit:
                continue
            images.add(row[0])
            rows.append(row)
    if not rows:
        raise DownloadFailed(f"{path} holds no box of these classes: choose another split")
    return head, rows


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.reader(stream)


def _file(where: Mirror, name: str, kept: Path, quiet: bool) -> Path:
    remote = Remote(url=f"{where.files}/{name}")
    return download(remote, kept / remote.file_name, quiet=quiet)
