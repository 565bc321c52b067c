"""The training images, drawn or decoded once, kept in one flat file and held in memory.

Drawing or decoding a picture costs as much as training a small network on it, so it is done once.
The file serves all trainings on the same data: its folder is named after the data. It is read, not
mapped, because first touches of mapped pages cost 4 ms an image here, as much as all the rest.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harness.errors import BadAnnotation
from harness.interfaces import Dataset
from models.training.augment import Sample

_CHUNK = 64


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where one image lies in the flat file, and its ground truth."""

    offset: int
    height: int
    width: int
    boxes: list[list[float]]
    labels: list[int]


class ImageStore:
    """Random access to the images and boxes of a data set. Use `open_store` to make one."""

    def __init__(self, folder: Path) -> None:
        self._entries = msgspec.json.decode((folder / "index.json").read_bytes(), type=list[_Entry])
        self._pixels: NDArray[np.uint8] = np.fromfile(folder / "pixels.bin", np.uint8)
        self._pixels.flags.writeable = False

    def __len__(self) -> int:
        return len(self._entries)

    def sample(self, index: int) -> Sample:
        """Image ``index`` with its boxes; the pixels are a read-only view."""
        entry = self._entries[index]
        flat = self._pixels[entry.offset : entry.offset + entry.height * entry.width * 3]
        return Sample(
            flat.reshape(entry.height, entry.width, 3),
            np.asarray(entry.boxes, np.float32).reshape(-1, 4),
            np.asarray(entry.labels, np.int64),
        )


def open_store(data: Dataset, cache: Path, *, workers: int) -> ImageStore:
    """The store of ``data`` under ``cache``, made first where it is not there yet.

    Crowd regions are left out, since they cannot be matched; difficult objects are kept.

    Raises:
        BadAnnotation: no image of the data set has an object.
    """
    folder = cache / f"{data.name}-{data.split}-{len(data)}-{_identity(data)}"
    if not (folder / "index.json").is_file():
        _fill(data, folder, workers)
    store = ImageStore(folder)
    if not any(len(store.sample(index).labels) for index in range(len(store))):
        raise BadAnnotation(
            f"{data.name}:{data.split} has no object in any image: nothing to learn"
        )
    return store


def _identity(data: Dataset) -> str:
    """Short hash of the first, middle and last image: another drawing is another store."""
    probes = (0, len(data) // 2, len(data) - 1)
    return hashlib.sha256("".join(map(data.digest, probes)).encode()).hexdigest()[:12]


def _fill(data: Dataset, folder: Path, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = folder / f"pixels.{os.getpid()}"
    starts = range(0, len(data), _CHUNK)
    entries: list[_Entry] = []
    offset = 0
    bar = tqdm(total=len(data), desc=f"reading {data.name}:{data.split}", unit="image")
    with (
        bar,
        pixels.open("wb") as out,
        ProcessPoolExecutor(max(workers, 1), mp_context=get_context("spawn")) as pool,
    ):
        for chunk in pool.map(_read, repeat(data), starts):
            for image, boxes, labels in chunk:
                height, width, _ = image.shape
                out.write(image.tobytes())
                entries.append(
                    _Entry(
                        offset=offset,
                        height=height,
                        width=width,
                        boxes=boxes.tolist(),
                        labels=labels.tolist(),
                    )
                )
                offset += image.size
            bar.update(len(chunk))
    pixels.replace(folder / "pixels.bin")
    index = folder / f"index.{os.getpid()}"
    index.write_bytes(msgspec.json.encode(entries))
    index.replace(folder / "index.json")  # last, so that a store with an index is whole


def _read(data: Dataset, start: int) -> list[Sample]:
    found = []
    for index in range(start, min(start + _CHUNK, len(data))):
        truth = data.truth(index)
        keep = ~truth.crowd
        found.append(Sample(data.image(index), truth.boxes[keep], truth.labels[keep]))
    return found
