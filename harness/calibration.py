"""Which images choose the quantization ranges, and which ones parity is checked on.

The choice is a seeded permutation of the calibration data: the first images calibrate, the next
`GOLDEN_IMAGES` are kept for parity, so that no artifact is checked on what calibrated it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from harness.cache import sha256_text
from harness.config import Calibration
from harness.datasets import open_dataset
from harness.errors import BadConfig
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
    data = open_dataset(calibration.data)
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
    """The calibration images by content, and the fingerprint of how they are prepared."""
    return CalibrationList(
        dataset=picked.data.name,
        split=picked.data.split,
        seed=calibration.seed,
        sha256=tuple(picked.data.digest(index) for index in picked.calibrating),
        preprocessing=preprocessing,
    )


@functools.cache
def digest(calibration: Calibration) -> str:
    """SHA-256 over the content of every image picked, golden ones included."""
    picked = pick(calibration)
    return sha256_text(picked.data.digest(index) for index in (*picked.calibrating, *picked.golden))
