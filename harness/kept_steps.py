"""Results of costly recipes, kept by all that they depend on: made once, used by every export.

A folder is named after the values of the network that the recipe was given, its options, its
images and the code. Two exports that need the same step at once wait for one another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.cache import sha256_text, write_atomic
from harness.provenance import source_digest, versions

SOURCES = ("models", "harness/images.py")
VALUES, NOTES = "values.npz", "notes.json"


def once(
    kept: Path,
    inputs: Sequence[str],
    network: Any,
    work: Callable[[Path], tuple[Any, tuple[str, ...]]],
) -> tuple[Any, tuple[str, ...]]:
    """What ``work`` makes of ``network``, now or at an earlier time.

    Args:
        inputs: all that the result depends on beside the network, the code and its versions.
        work: changes values of ``network`` in place; is given the step's folder.
    """
    code = [source_digest(SOURCES), str(versions(("torch", "numpy", "PIL")))]
    folder = kept / sha256_text([*inputs, _digest(network), *code])[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        notes = folder / NOTES
        if notes.is_file():
            _load(network, folder / VALUES)
            return network, tuple(json.loads(notes.read_text(encoding="utf-8")))
        network, said = work(folder)
        _save(network, folder / VALUES)
        write_atomic(notes, json.dumps(said).encode())
    return network, said


def _digest(network: Any) -> str:
    """SHA-256 over the names, shapes and values of the network's state."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        array = value.cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _save(network: Any, path: Path) -> None:
    arrays: dict[str, Any] = {k: v.cpu().numpy() for k, v in network.state_dict().items()}
    partial = path.with_name(f".partial-{path.name}")
    np.savez(partial, **arrays)
    os.replace(partial, path)


def _load(network: Any, path: Path) -> None:
    """Into the network's own memory: a state dict's tensors are views of it."""
    with np.load(path, allow_pickle=False) as arrays:
        for name, value in network.state_dict().items():
            value.numpy()[...] = arrays[name]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go when the process ends, however it does."""
    try:
        import fcntl
    except ImportError:  # not on Windows: there two exports at once do the same work
        yield
        return
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
