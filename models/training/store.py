"""The training images: decoded once and held in memory, or read each time they are shown.

Drawing or decoding a picture costs as much as training a small network on it, so it is done once,
where the memory holds them all. The flat file on disk serves all trainings on the same pictures:
its folder is named after them. It is read, not mapped, because first touches of mapped pages cost
4 ms an image here, as much as all the rest. The boxes are not in it: they are read anew each time.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from harness.datasets import open_dataset
from harness.errors import BadAnnotation, BadConfig
from harness.evaluation import class_map
from harness.interfaces import Dataset
from models.training.augment import Sample

_CHUNK = 64
_SHARE = 0.7
"""Largest part of the free memory that the images may take."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where one image lies in the flat file."""

    offset: int
    height: int
    width: int


class Images(ABC):
    """Random access to the images and boxes of a data set. Use `open_images` to make one.

    Crowd regions are left out, since they cannot be matched; difficult objects are kept.
    """

    def __init__(self, data: Dataset, labels: Sequence[str]) -> None:
        """``labels``: the classes to learn; those of the data are found in them by name."""
        self._data = data
        where = f"{data.name}:{data.split}"
        to_learn = class_map(data.labels, labels, where)
        self._truths = []
        for index in range(len(data)):
            truth = data.truth(index)
            keep = ~truth.crowd
            self._truths.append((truth.boxes[keep], to_learn[truth.labels[keep]]))
        if not any(len(found) for _, found in self._truths):
            raise BadAnnotation(f"{where} has no object in any image: nothing to learn")

    def __len__(self) -> int:
        return len(self._data)

    def name(self, index: int) -> str:
        """What the data set calls image ``index``."""
        return self._data.image_id(index)

    def truth(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes in pixels and labels of image ``index``, as in `Sample`."""
        return self._truths[index]

    def sample(self, index: int) -> Sample:
        """Image ``index`` with its boxes."""
        return Sample(self.pixels(index), *self._truths[index])

    @abstractmethod
    def pixels(self, index: int) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB, not to be written to."""


class ImagesInFiles(Images):
    """Each image is read when it is shown, by the thread that shows it."""

    def pixels(self, index: int) -> NDArray[np.uint8]:
        return self._data.image(index)


class ImagesInMemory(Images):
    """All images are held, from the flat file in ``folder``."""

    def __init__(self, data: Dataset, labels: Sequence[str], folder: Path) -> None:
        super().__init__(data, labels)
        self._entries = msgspec.json.decode((folder / "index.json").read_bytes(), type=list[_Entry])
        self._pixels: NDArray[np.uint8] = np.fromfile(folder / "pixels.bin", np.uint8)
        self._pixels.flags.writeable = False

    def pixels(self, index: int) -> NDArray[np.uint8]:
        entry = self._entries[index]
        flat = self._pixels[entry.offset : entry.offset + entry.height * entry.width * 3]
        return flat.reshape(entry.height, entry.width, 3)


def open_images(
    text: str,
    limit: int | None,
    cache: Path,
    *,
    labels: Sequence[str] | None = None,
    workers: int,
    in_memory: bool = True,
) -> Images:
    """The images of a data set; in memory, the flat file is made first where it is not there yet.

    Args:
        text, limit: the data set, as `harness.datasets.open_dataset` takes it.
        cache: folder of the flat files.
        labels: the classes to learn, background first; None is the data set's own.
        workers: processes that read it; 0 reads it here.

    Raises:
        BadAnnotation: no image of the data set has an object.
        BadConfig: it has classes that are not in ``labels``, or does not fit into memory.
        BadImage: a picture that cannot be read.
    """
    data = open_dataset(text, limit=limit)
    labels = data.labels if labels is None else labels
    if not in_memory:
        return ImagesInFiles(data, labels)
    folder = cache / f"{data.name}-{data.split}-{len(data)}-{_identity(data)}"
    if not (folder / "index.json").is_file():
        _check_fits(data)
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(data), _CHUNK)
        bar = tqdm(total=len(data), desc=f"reading {data.name}:{data.split}", unit="image")
        with bar, _reader(workers) as reader:
            _write(reader(_read, repeat(text), repeat(limit), starts), folder, bar)
    return ImagesInMemory(data, labels, folder)


def _identity(data: Dataset) -> str:
    """Short hash of the pictures' content; of drawn ones, which are drawn alike, of three."""
    count = len(data)
    in_files = data.encoded(0) is not None
    probes = range(count) if in_files else (0, count // 2, count - 1)
    return hashlib.sha256("".join(map(data.digest, probes)).encode()).hexdigest()[:12]


def _check_fits(data: Dataset) -> None:
    """Refuse what the memory will not hold. Raises BadConfig."""
    probes = sorted({len(data) * part // 8 for part in range(8)})
    size = sum(data.image(index).nbytes for index in probes) / len(probes) * len(data)
    free = psutil.virtual_memory().available
    if size > _SHARE * free:
        raise BadConfig(
            f"the {len(data)} images of {data.name}:{data.split} take about {size / 1e9:.1f} GB"
            f" decoded, and {free / 1e9:.1f} GB of memory are free: set images_in=files, which"
            " reads them again each time"
        )


@contextmanager
def _reader(workers: int) -> Iterator[Callable[..., Iterable[list[NDArray[np.uint8]]]]]:
    """``map``, over processes where there shall be some."""
    if workers == 0:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _write(chunks: Iterable[list[NDArray[np.uint8]]], folder: Path, bar: tqdm[NoReturn]) -> None:
    """Write the flat file, then its index, so that a store with an index is whole."""
    entries: list[_Entry] = []
    offset = 0
    pixels, index = folder / f"pixels.{os.getpid()}", folder / f"index.{os.getpid()}"
    with pixels.open("wb") as out:
        for chunk in chunks:
            for image in chunk:
                height, width, _ = image.shape
                out.write(image.tobytes())
                entries.append(_Entry(offset=offset, height=height, width=width))
                offset += image.size
            bar.update(len(chunk))
    pixels.replace(folder / "pixels.bin")
    index.write_bytes(msgspec.json.encode(entries))
    index.replace(folder / "index.json")


@lru_cache(maxsize=1)
def _opened(text: str, limit: int | None) -> Dataset:
    return open_dataset(text, limit=limit)


def _read(text: str, limit: int | None, start: int) -> list[NDArray[np.uint8]]:
    data = _opened(text, limit)
    return [data.image(index) for index in range(start, min(start + _CHUNK, len(data)))]
