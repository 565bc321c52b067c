"""The training images, drawn or decoded once, kept in one flat file and held in memory.

Drawing or decoding a picture costs as much as training a small network on it, so it is done once.
The file serves all trainings on the same data: its folder is named after the data. It is read, not
mapped, because first touches of mapped pages cost 4 ms an image here, as much as all the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harness.datasets import open_dataset
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


def open_store(text: str, limit: int | None, cache: Path, *, workers: int) -> ImageStore:
    """The store of a data set under ``cache``, made first where it is not there yet.

    Crowd regions are left out, since they cannot be matched; difficult objects are kept.

    Args:
        text, limit: the data set, as `harness.datasets.open_dataset` takes it.
        workers: processes that read it; 0 reads it here.

    Raises:
        BadAnnotation: no image of the data set has an object.
    """
    data = open_dataset(text, limit=limit)
    folder = cache / f"{data.name}-{data.split}-{len(data)}-{_identity(data)}"
    if not (folder / "index.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(data), _CHUNK)
        bar = tqdm(total=len(data), desc=f"reading {data.name}:{data.split}", unit="image")
        with bar, _reader(workers) as reader:
            _write(reader(_read, repeat(text), repeat(limit), starts), folder, bar)
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


@contextmanager
def _reader(workers: int) -> Iterator[Callable[..., Iterable[list[Sample]]]]:
    """``map``, over processes where there shall be some."""
    if workers == 0:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _write(chunks: Iterable[list[Sample]], folder: Path, bar: tqdm[NoReturn]) -> None:
    """Write the flat file, then its index, so that a store with an index is whole."""
    entries: list[_Entry] = []
    offset = 0
    pixels, index = folder / f"pixels.{os.getpid()}", folder / f"index.{os.getpid()}"
    with pixels.open("wb") as out:
        for chunk in chunks:
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
    index.write_bytes(msgspec.json.encode(entries))
    index.replace(folder / "index.json")


@lru_cache(maxsize=1)
def _opened(text: str, limit: int | None) -> Dataset:
    return open_dataset(text, limit=limit)


def _read(text: str, limit: int | None, start: int) -> list[Sample]:
    data = _opened(text, limit)
    found = []
    for index in range(start, min(start + _CHUNK, len(data))):
        truth = data.truth(index)
        keep = ~truth.crowd
        found.append(Sample(data.image(index), truth.boxes[keep], truth.labels[keep]))
    return found
