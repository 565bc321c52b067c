"""Which images choose the quantization ranges, and which ones parity is checked on.

The choice is a seeded permutation of the calibration data: the first images calibrate, the next
`GOLDEN_IMAGES` are kept for parity, so that no artifact is checked on what calibrated it. Images
that are scored never calibrate, unless that is forced.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import numpy as np

from harness.cache import sha256_text
from harness.config import Calibration
from harness.datasets import open_dataset
from harness.datasets.alike import common
from harness.datasets.training import DRAWN, training_split
from harness.datasets.without import LEFT_OUT
from harness.errors import BadConfig
from harness.images import pixels_digest
from harness.interfaces import Dataset
from harness.records import CalibrationList

GOLDEN_IMAGES = 8


class Picked(NamedTuple):
    """Indices into ``data``."""

    data: Dataset
    calibrating: tuple[int, ...]
    golden: tuple[int, ...]


def pick(calibration: Calibration) -> Picked:
    """Choose as asked.

    Raises:
        BadConfig: the data set is too small for both.
    """
    data = open_dataset(str(calibration.data))
    wanted = calibration.images + GOLDEN_IMAGES
    if len(data) < wanted:
        raise BadConfig(
            f"{calibration.data} has {len(data)} images, expected {wanted}"
            f" ({calibration.images} to calibrate and {GOLDEN_IMAGES} for parity):"
            " lower calibration.images"
        )
    order = np.random.Generator(np.random.PCG64(calibration.seed)).permutation(len(data))
    chosen = tuple(int(index) for index in order[:wanted])
    return Picked(data, chosen[: calibration.images], chosen[calibration.images :])


def listing(calibration: Calibration, picked: Picked, preprocessing: str) -> CalibrationList:
    """The calibration images by name and content, and how they are prepared."""
    data, indices = picked.data, picked.calibrating
    return CalibrationList(
        dataset=data.name,
        split=data.split,
        seed=calibration.seed,
        sha256=tuple(data.digest(index) for index in indices),
        preprocessing=preprocessing,
        names=tuple(data.image_id(index) for index in indices),
        pixels=tuple(pixels_digest(data.image(index)) for index in indices),
    )


@functools.cache
def digest(calibration: Calibration) -> str:
    """SHA-256 over the content of every image picked, golden ones included."""
    picked = pick(calibration)
    return sha256_text(picked.data.digest(index) for index in (*picked.calibrating, *picked.golden))


def resolve(calibration: Calibration, scored: str, *, required: bool) -> Calibration:
    """``calibration`` with its data named: as asked, else the training split beside ``scored``.

    Args:
        scored: the data set that is scored, as its user writes it.
        required: the exporter calibrates; else drawn scenes do for the parity check.

    Raises:
        BadConfig: there is no such split, and the exporter calibrates.
    """
    if calibration.data is not None:
        return calibration
    beside = training_split(scored)
    if beside is None and required:
        raise BadConfig(
            f"no images to calibrate with are known for {scored}, because no training split lies"
            " beside it: name them with --set calibration.data=…, such as coco:/path:train2017"
            " (detbench fetch coco-val2017 brings some)"
        )
    return msgspec.structs.replace(calibration, data=beside or DRAWN)


@functools.cache
def check_disjoint(calibration: Calibration, scored: str, images: int) -> None:
    """Refuse to calibrate with images that are scored, unless that is forced.

    Only what is cheap is compared here: drawn scenes of one split, and files of the same size. The
    evaluation compares every image by content, and marks the row.

    Raises:
        BadConfig: some calibration images are scored.
    """
    if calibration.force:
        return
    picked, data = pick(calibration), open_dataset(scored, limit=images, skip_bad=True)
    both = common(picked.data, picked.calibrating, data)
    if both:
        raise BadConfig(
            f"{len(both)} of the {len(picked.calibrating)} images that calibrate"
            f" ({calibration.data}) are also scored ({scored}), the first is {both[0]}: give"
            f" another split with --set calibration.data=…, such as {LEFT_OUT}, or accept marked"
            " rows with --set calibration.force=true"
        )
