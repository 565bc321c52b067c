"""Write any data set as Pascal VOC or COCO, for other tools and for checks of our readers.

VOC's development kit and most readers look for ``JPEGImages/NAME.jpg`` whatever the list says, so
`write_voc` writes JPEG (quality 95, colour not subsampled): boxes survive, pixels change a little
(and with them, a little, scores). COCO names its files, so `write_coco` writes PNG, without loss.
A picture that is already such a file is copied byte by byte instead, and keeps its digest.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.cache import write_atomic
from harness.datasets._files import FileDataset
from harness.errors import ResultsError
from harness.interfaces import Dataset, Truth


def write_voc(dataset: Dataset, folder: Path | str) -> Path:
    """Write ``folder/VOCdevkit/VOC2012``: images, XML, the split's list and one list per class.

    A class list says 1 where the class occurs, 0 where only difficult ones do, -1 elsewhere, as in
    the development kit. Edges are rounded to VOC's whole pixels, at least one pixel wide. VOC knows
    no crowds: one is written as difficult, with an ``iscrowd`` that our reader understands.

    Returns:
        The folder ``VOC2012``.

    Raises:
        ResultsError: it cannot be written.
    """
    root = Path(folder) / "VOCdevkit" / "VOC2012"
    truths = []
    for index in range(len(dataset)):
        name = dataset.image_id(index)
        truth = dataset.truth(index)
        pixels = dataset.image(index)
        data = _bytes(dataset, index, pixels, "JPEG")
        _write(root / "JPEGImages" / f"{name}.jpg", data)
        text = voc_xml(name, pixels.shape[:2], truth, dataset.labels)
        _write(root / "Annotations" / f"{name}.xml", text.encode())
        truths.append((name, truth))
    lists = root / "ImageSets" / "Main"
    for label, kind in enumerate(dataset.labels[1:], start=1):
        lines = [f"{name} {_presence(truth, label):2d}\n" for name, truth in truths]
        _write(lists / f"{kind}_{dataset.split}.txt", "".join(lines).encode())
    write_atomic(root / "labels.txt", "".join(f"{k}\n" for k in dataset.labels[1:]).encode())
    names = "".join(f"{name}\n" for name, _ in truths)
    write_atomic(lists / f"{dataset.split}.txt", names.encode())
    return root


def write_coco(dataset: Dataset, folder: Path | str) -> Path:
    """Write ``folder/annotations/instances_SPLIT.json`` and ``folder/SPLIT/NAME.png``.

    Image ids count from 1 in the data set's order, category ids are the labels' indices (the
    original ids where the data set has them). ``difficult`` is added, which other readers ignore.

    Returns:
        The JSON file.

    Raises:
        ResultsError: it cannot be written.
    """
    root = Path(folder)
    ids = [*getattr(dataset, "category_ids", range(1, len(dataset.labels)))]
    images: list[dict[str, Any]] = []
    things: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        truth, pixels = dataset.truth(index), dataset.image(index)
        data = _bytes(dataset, index, pixels, "PNG")
        name = f"{dataset.image_id(index)}.{'jpg' if data[:2] == JPEG_START else 'png'}"
        _write(root / dataset.split / name, data)
        height, width = pixels.shape[:2]
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        for row in range(len(truth.boxes)):
            thing = coco_thing(truth, row, ids)
            things.append({"id": len(things) + 1, "image_id": index + 1, **thing})
    categories = [{"id": k, "name": kind} for k, kind in zip(ids, dataset.labels[1:], strict=True)]
    content = {"images": images, "annotations": things, "categories": categories}
    path = root / "annotations" / f"instances_{dataset.split}.json"
    write_atomic(path, json.dumps(content, allow_nan=False).encode())
    return path


JPEG_START = b"\xff\xd8"


def voc_xml(name: str, shape: tuple[int, ...], truth: Truth, labels: tuple[str, ...]) -> str:
    """One annotation file; ``shape`` is (height, width)."""
    height, width = shape
    lines = [
        "<annotation>",
        f"  <folder>VOC2012</folder>\n  <filename>{escape(name)}.jpg</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    rows = zip(truth.boxes.tolist(), truth.labels, truth.difficult, truth.crowd, strict=True)
    for box, label, difficult, crowd in rows:
        left, right = voc_edges(box[0], box[2])
        top, bottom = voc_edges(box[1], box[3])
        lines.append(
            f"  <object>\n    <name>{escape(labels[label])}</name>\n"
            "    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n"
            f"    <difficult>{int(difficult or crowd)}</difficult>\n"
            + ("    <iscrowd>1</iscrowd>\n" if crowd else "")
            + f"    <bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>\n  </object>"
        )
    return "\n".join([*lines, "</annotation>\n"])


def voc_edges(low: float, high: float) -> tuple[int, int]:
    """First and last pixel, counted from 1: rounded, or the one at the middle if that is none."""
    first, last = math.floor(low + 0.5) + 1, math.floor(high + 0.5)
    middle = math.floor((low + high) / 2) + 1
    return (first, last) if first <= last else (middle, middle)


def coco_thing(truth: Truth, row: int, ids: list[int]) -> dict[str, Any]:
    """One annotation without its ids."""
    left, top, right, bottom = truth.boxes[row].tolist()
    area = (right - left) * (bottom - top) if truth.area is None else float(truth.area[row])
    return {
        "category_id": int(ids[int(truth.labels[row]) - 1]),
        "bbox": [left, top, right - left, bottom - top],
        "area": area,
        "iscrowd": int(truth.crowd[row]),
        "difficult": int(truth.difficult[row]),
    }


def _presence(truth: Truth, label: int) -> int:
    """1, 0 or -1 for a class list of VOC."""
    here = truth.labels == label
    if not here.any():
        return -1
    return int((here & ~truth.difficult & ~truth.crowd).any())


def _bytes(dataset: Dataset, index: int, pixels: NDArray[np.uint8], form: str) -> bytes:
    """The picture's file: its own bytes where the form allows, else encoded."""
    if isinstance(dataset, FileDataset):
        own = dataset.path(index).read_bytes()
        if own[:2] == JPEG_START or (form == "PNG" and own[:4] == b"\x89PNG"):
            return own
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write one of many files; the list that names them comes last, and atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be written ({error.strerror}): free space or choose another folder"
        ) from error
