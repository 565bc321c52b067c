"""Drawn scenes on disk, so that an evaluation does not draw them again.

A chunk is one file of `CHUNK` images of a split, by their numbers, whatever count was asked for::

    SHA-256 of all that follows (32 bytes) | length of the index (8 bytes, little endian)
    | index (JSON: height, width, boxes, labels, digest of each image) | RGB pixels of image 0, 1, …

It is written under a temporary name and renamed, so several processes at once can only do the same
work twice. It is verified when it is opened; a damaged one is drawn again. The folder's name holds
a hash of the drawing code, so a chunk of other code is never read. Where the cache cannot be
written (read-only, disk full) chunks stay in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.cache import cache_dir, sha256_text, write_atomic
from harness.errors import ResultsError

CHUNK = 64
OPEN_CHUNKS = 256  # 3.5 GB of address space, not of memory
HEAD = 40


class Entry(msgspec.Struct, frozen=True):
    """One image of a chunk; ``boxes`` are whole pixels."""

    height: int
    width: int
    boxes: list[list[int]]
    labels: list[int]
    digest: str


class Drawn(NamedTuple):
    """What the cache keeps of a scene; ``pixels`` is (h, w, 3)."""

    entry: Entry
    pixels: NDArray[np.uint8]


class Chunk:
    """An opened chunk."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        """Verify ``data`` and read its index.

        Raises:
            ValueError: damaged.
        """
        view = memoryview(data)
        if len(view) < HEAD or hashlib.sha256(view[32:]).digest() != bytes(view[:32]):
            raise ValueError("the chunk is damaged")
        length = int.from_bytes(view[32:HEAD], "little")
        self.entries = msgspec.json.decode(view[HEAD : HEAD + length], type=tuple[Entry, ...])
        sizes = [entry.height * entry.width * 3 for entry in self.entries]
        self._starts = np.cumsum([HEAD + length, *sizes]).tolist()
        if len(self.entries) != CHUNK or self._starts[-1] != len(view):
            raise ValueError("the chunk is damaged")
        self._view = view

    def pixels(self, place: int) -> NDArray[np.uint8]:
        """``(h, w, 3)``, a copy."""
        entry = self.entries[place]
        part = self._view[self._starts[place] : self._starts[place + 1]]
        return np.frombuffer(part, np.uint8).reshape(entry.height, entry.width, 3).copy()


class ShapeCache:
    """The chunks of one split.

    Args:
        name: first part of the chunks' file names.
        draw: draws the image of a number.
    """

    def __init__(self, name: str, draw: Callable[[int], Drawn]) -> None:
        self._name = name
        self._draw = draw
        self._open: OrderedDict[int, Chunk] = OrderedDict()

    def entry(self, index: int) -> Entry:
        """Size, boxes, labels and digest of image ``index``."""
        return self._chunk(index // CHUNK).entries[index % CHUNK]

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Pixels of image ``index``."""
        return self._chunk(index // CHUNK).pixels(index % CHUNK)

    def _chunk(self, number: int) -> Chunk:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        chunk = self._load(number)
        self._open[number] = chunk
        if len(self._open) > OPEN_CHUNKS:
            self._open.popitem(last=False)
        return chunk

    def _load(self, number: int) -> Chunk:
        try:
            path = cache_dir("datasets", f"shapes-{drawing_code()}") / self._file(number)
        except ResultsError:
            return Chunk(self._draw_chunk(number))
        # it may be absent, empty, damaged, or of another form
        with contextlib.suppress(OSError, ValueError, msgspec.DecodeError), path.open("rb") as file:
            return Chunk(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        data = self._draw_chunk(number)
        with contextlib.suppress(ResultsError):  # read-only or full: what was drawn is at hand
            write_atomic(path, data)
        return Chunk(data)

    def _file(self, number: int) -> str:
        return f"{self._name}-{number * CHUNK:07d}.bin"

    def _draw_chunk(self, number: int) -> bytes:
        """The bytes of a chunk's file."""
        drawn = [self._draw(number * CHUNK + place) for place in range(CHUNK)]
        index = msgspec.json.encode([item.entry for item in drawn])
        body = b"".join(
            [len(index).to_bytes(8, "little"), index, *(item.pixels.tobytes() for item in drawn)]
        )
        return hashlib.sha256(body).digest() + body


@cache
def drawing_code() -> str:
    """12 digits of the SHA-256 of the files that decide what is drawn and how it is stored."""
    parts = sorted(Path(__file__).parent.glob("_shape_*.py"))
    files = [*parts, Path(__file__).with_name("shapes.py")]
    return sha256_text(path.read_text(encoding="utf-8") for path in files)[:12]
