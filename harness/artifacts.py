"""Artifacts on disk: a folder with the model's files, what belongs to them and a manifest.

``artifact.json`` names every file with its SHA-256. `load` verifies all of them, so that what runs
is what was exported. `publish` makes the folder appear whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.cache import sha256_file, sha256_text, write_atomic
from harness.errors import ArtifactDamaged, BadConfig, ResultsError
from harness.interfaces import RawOutputs
from harness.records import Artifact, FileEntry, decode, encode

MANIFEST = "artifact.json"
PRIORS = "priors.npy"
GOLDEN = "golden.npz"
WEIGHTS = "weights.safetensors"
"""Compressed weights of the network that was exported, where recipes made them smaller."""
GOLDEN_DATA = "golden"
"""What stands for a data set where an artifact is timed on its own golden images."""
NO_REFERENCE = "no float reference: the file was not exported here, so parity cannot be checked"


class Golden(NamedTuple):
    """Real images and the float network's answers to them.

    Attributes:
        images: ``(n, height, width, 3)`` uint8 RGB at the network's input size.
        outputs: float32 logits ``(n, priors, classes)`` and offsets ``(n, priors, 4)``.
    """

    images: NDArray[np.uint8]
    outputs: RawOutputs


def expect_new(folder: Path) -> None:
    """Raise BadConfig if ``folder`` is there and is anything but an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "not empty" if folder.is_dir() else "a file"
        raise BadConfig(f"{folder} is {what}: give a new folder with -o")


def load(folder: Path) -> Artifact:
    """Read the manifest in ``folder`` and verify every file it names.

    Raises:
        ArtifactDamaged: no manifest, a missing file, other bytes than were exported.
    """
    artifact = read_manifest(folder)
    for entry in artifact.files:
        path = folder / entry.path
        if not path.is_file():
            raise ArtifactDamaged(f"{path} is missing: export {artifact.model} again")
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise ArtifactDamaged(
                f"{path} has {size} bytes, its manifest says {entry.size_bytes}:"
                f" export {artifact.model} again"
            )
        found = sha256_file(path)
        if found != entry.sha256:
            raise ArtifactDamaged(
                f"{path} has SHA-256 {found[:12]}…, its manifest says {entry.sha256[:12]}…:"
                f" export {artifact.model} again"
            )
    if model_digest(artifact.files) != artifact.sha256:
        raise ArtifactDamaged(f"{folder / MANIFEST} was edited: its own SHA-256 does not follow")
    return artifact


def read_manifest(folder: Path) -> Artifact:
    """The manifest alone, without verifying the files.

    Raises:
        ArtifactDamaged: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactDamaged(
            f"{folder} is not an artifact ({MANIFEST}: {error.strerror}):"
            " give a folder made by detbench export"
        ) from None
    try:
        return decode(data, Artifact, path)
    except ResultsError as error:
        raise ArtifactDamaged(str(error)) from None


def model_file(artifact: Artifact, folder: Path) -> Path:
    """The file that a runtime opens: the first whose role is ``model``."""
    return folder / next(entry.path for entry in artifact.files if entry.role == "model")


def priors(folder: Path) -> NDArray[np.float32]:
    """``(priors, 4)`` float32 ``(cx, cy, w, h)``, relative to the image; none where its outputs
    need none.
    """
    if not (folder / PRIORS).is_file():
        return np.zeros((0, 4), np.float32)
    found: NDArray[np.float32] = np.load(folder / PRIORS, allow_pickle=False)
    return found


def golden(folder: Path) -> Golden | None:
    """The golden images and answers of an artifact; None where there is no float reference."""
    if not (folder / GOLDEN).is_file():
        return None
    with np.load(folder / GOLDEN, allow_pickle=False) as data:
        return Golden(data["images"], RawOutputs(data["logits"], data["offsets"]))


def write_extras(
    folder: Path, prior_boxes: NDArray[np.float32] | None, answers: Golden | None = None
) -> None:
    """Put priors and golden answers, where there are any, beside the model."""
    if prior_boxes is not None:
        np.save(folder / PRIORS, prior_boxes.astype(np.float32), allow_pickle=False)
    if answers is None:
        return
    arrays: dict[str, Any] = {
        "images": answers.images,
        "logits": answers.outputs.logits,
        "offsets": answers.outputs.offsets,
    }
    np.savez_compressed(folder / GOLDEN, **arrays)


def entries(folder: Path, model_files: Iterable[str]) -> tuple[FileEntry, ...]:
    """Entries of the model's files, and of what lies beside them."""
    roles: list[tuple[str, Literal["model", "priors", "golden", "weights"]]] = [
        *((name, "model") for name in model_files),
        (PRIORS, "priors"),
        (GOLDEN, "golden"),
        (WEIGHTS, "weights"),
    ]
    return tuple(
        FileEntry(
            path=name,
            role=role,
            sha256=sha256_file(folder / name),
            size_bytes=(folder / name).stat().st_size,
        )
        for name, role in roles
        if role == "model" or (folder / name).is_file()
    )


def model_digest(files: Iterable[FileEntry]) -> str:
    """One SHA-256 for the files whose role is ``model``: the file's own where there is one."""
    digests = [entry.sha256 for entry in files if entry.role == "model"]
    return digests[0] if len(digests) == 1 else sha256_text(digests)


def publish(staging: Path, artifact: Artifact, folder: Path) -> None:
    """Write the manifest and move ``staging`` to ``folder``, replacing what is there.

    Raises:
        ResultsError: the folder cannot be written.
    """
    write_atomic(staging / MANIFEST, encode(artifact))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(staging, folder)
    except OSError as error:
        raise ResultsError(f"{folder} cannot be written ({error.strerror}): free space") from error
