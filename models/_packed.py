"""Compressed weights on disk, to the bit: pruned layers by what is kept, clustered ones by indices.

A safetensors file whose metadata says ``format: detbench-packed`` and, as JSON, the shape of every
packed tensor. A tensor called NAME that is not packed lies there as it is. One that is packed has
up to three parts, whichever take the fewest bytes:

- ``NAME.mask``: a bit for each weight, 1 where it is not zero; without it all weights are stored;
- ``NAME.codebook`` float32 and ``NAME.indices``, as many bits each as the codebook needs;
- ``NAME.values`` float32, where there is no codebook.

Bits are packed into bytes, the first one highest. Reading gives back the very same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.extras import require
from models.recipes._shared import MOST_VALUES, index_bits

FORMAT = "detbench-packed"
Parts = dict[str, NDArray[np.generic]]


class Packed(NamedTuple):
    """What was written: bytes of the file, of the same tensors unpacked, and packed tensors."""

    size_bytes: int
    plain_bytes: int
    tensors: int


def write_packed(network: nn.Module, path: Path) -> Packed | None:
    """Write the state of ``network`` to ``path``; None and no file where nothing gets smaller."""
    arrays: dict[str, NDArray[np.generic]] = {}
    shapes: dict[str, list[int]] = {}
    plain = 0
    for name, value in network.state_dict().items():
        array = value.detach().cpu().numpy()
        plain += array.nbytes
        parts = pack(array) if array.dtype == np.float32 and array.ndim > 1 else None
        if parts is None:
            arrays[name] = np.array(array, order="C")
        else:
            shapes[name] = list(array.shape)
            arrays |= {f"{name}.{part}": data for part, data in parts.items()}
    if not shapes:
        return None
    safetensors = require("safetensors.numpy", extra="torch")
    metadata = {"format": FORMAT, "shapes": json.dumps(shapes)}
    safetensors.save_file(arrays, str(path), metadata=metadata)
    return Packed(path.stat().st_size, plain, len(shapes))


def pack(weight: NDArray[np.float32]) -> Parts | None:
    """The parts of the shortest exact way to store ``weight``; None where that is as it is."""
    flat = np.ascontiguousarray(weight).ravel()
    if np.signbit(flat[flat == 0]).any():  # neither mask nor codebook knows a second zero
        return None
    kept = flat[flat != 0]
    ways = [_values(flat), _values(kept) | {"mask": np.packbits(flat != 0)}]
    least = min(ways, key=_bytes)
    return least if _bytes(least) < flat.nbytes else None


def unpack(parts: Mapping[str, NDArray[np.generic]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The float32 weights of ``shape`` that `pack` made ``parts`` of.

    Raises:
        ValueError: the parts do not belong together.
    """
    size = int(np.prod(shape))
    flat = np.zeros(size, np.float32)
    places = np.ones(size, np.bool_)
    if "mask" in parts:
        places = np.unpackbits(np.asarray(parts["mask"], np.uint8), count=size).astype(np.bool_)
    count = int(places.sum())
    if "codebook" in parts:
        book = np.asarray(parts["codebook"], np.float32)
        bits = index_bits(len(book))
        rows = np.unpackbits(np.asarray(parts["indices"], np.uint8), count=count * bits)
        weights = 1 << np.arange(bits - 1, -1, -1)
        flat[places] = book[rows.reshape(count, bits) @ weights]
    else:
        flat[places] = np.asarray(parts["values"], np.float32)
    return flat.reshape(shape)


def read_packed(
    metadata: Mapping[str, str], tensor: Callable[[str], Tensor], names: set[str]
) -> dict[str, Tensor]:
    """All tensors of a packed file by name, as they were.

    Args:
        metadata: of the file.
        tensor: reads one of its tensors.
        names: of all of them.

    Raises:
        ValueError: the file is damaged.
    """
    shapes: dict[str, list[int]] = json.loads(metadata["shapes"])
    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        own = {
            part for part in ("mask", "codebook", "indices", "values") if f"{name}.{part}" in names
        }
        parts = {part: tensor(f"{name}.{part}").numpy() for part in own}
        try:
            found[name] = torch.from_numpy(unpack(parts, tuple(shape)))
        except (KeyError, IndexError) as error:
            raise ValueError(f"the parts of {name} do not belong together: {error}") from None
        names = names - {f"{name}.{part}" for part in own}
    return found | {name: tensor(name) for name in names}


def _values(flat: NDArray[np.float32]) -> Parts:
    """As indices into a codebook where that is shorter, else as they are."""
    book, indices = np.unique(flat, return_inverse=True)
    plain: Parts = {"values": flat}
    if len(book) > MOST_VALUES or not len(book):
        return plain
    bits = index_bits(len(book))
    rows = np.unpackbits(indices.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
    coded: Parts = {"codebook": book, "indices": np.packbits(rows)}
    return min(plain, coded, key=_bytes)


def _bytes(parts: Parts) -> int:
    return sum(part.nbytes for part in parts.values())
