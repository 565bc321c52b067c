"""What a model found in a data set, image by image, with the ground truth: the evidence of a score.

One ``.npz`` an accuracy cell. Curves, confusions and pictures of a report are derived from it, so
that only the pictures themselves need the data set again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.cache import write_atomic
from harness.errors import ResultsError
from harness.interfaces import Detections, Truth

DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile)


class Found(NamedTuple):
    """Images in the data set's order.

    Attributes:
        names: image ids of the data set.
        detections: what was found in each image.
        sizes: ``(height, width)`` of each image in pixels; None in a file of an older version.
        digests: SHA-256 of each image's content; None in a file of an older version.
        truths: ground truth with labels in the model's order; None where the data set has none.
    """

    names: list[str]
    detections: list[Detections]
    sizes: list[tuple[int, int]] | None = None
    digests: list[str] | None = None
    truths: list[Truth] | None = None


def save(path: Path, found: Found) -> None:
    """Write all of ``found`` into one ``.npz``."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {"names": np.array(found.names), **_stacked(found.detections)}
    if found.sizes is not None:
        arrays["sizes"] = np.array(found.sizes, np.int64).reshape(-1, 2)
    if found.digests is not None:
        arrays["digests"] = np.array(found.digests)
    if found.truths is not None:
        complete = all(truth.area is not None for truth in found.truths)
        bare = found.truths if complete else [one._replace(area=None) for one in found.truths]
        arrays |= {f"truth_{key}": value for key, value in _stacked(bare).items()}
    np.savez_compressed(stream, **arrays)
    write_atomic(path, stream.getvalue())


def load(path: Path) -> Found:
    """What `save` wrote, or an older version with names and detections only.

    Raises:
        ResultsError: it is not such a file.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
        truth = {k.removeprefix("truth_"): v for k, v in arrays.items() if k.startswith("truth_")}
        return Found(
            names=arrays["names"].tolist(),
            detections=[Detections(**one) for one in _split(arrays, Detections._fields)],
            sizes=[(h, w) for h, w in arrays["sizes"].tolist()] if "sizes" in arrays else None,
            digests=arrays["digests"].tolist() if "digests" in arrays else None,
            truths=[Truth(**one) for one in _split(truth, Truth._fields)] if truth else None,
        )
    except DAMAGED as error:
        raise ResultsError(f"detections {path} cannot be read ({error}): delete them") from None


def of_names(found: Found, names: Sequence[str]) -> list[Detections] | None:
    """What was found in the images called ``names``, in that order; None where one is missing."""
    if found.names == names:
        return found.detections
    places = {name: place for place, name in enumerate(found.names)}
    if not all(name in places for name in names):
        return None
    return [found.detections[places[name]] for name in names]


def _stacked(items: Sequence[Detections] | Sequence[Truth]) -> dict[str, Any]:
    """All rows of all images, field by field, and how many each image has; None is left out."""
    if not items:
        return {"counts": np.zeros(0, np.int64)}
    fields = {
        name: np.concatenate([getattr(one, name) for one in items])
        for name in items[0]._fields
        if getattr(items[0], name) is not None
    }
    return {"counts": np.array([len(one.labels) for one in items], np.int64), **fields}


def _split(arrays: dict[str, NDArray[Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """The inverse of `_stacked`: the fields of each image."""
    ends = np.cumsum(arrays["counts"])[:-1]
    parts = {name: np.split(arrays[name], ends) for name in fields if name in arrays}
    return [
        {name: values[index] for name, values in parts.items()}
        for index in range(len(arrays["counts"]))
    ]
