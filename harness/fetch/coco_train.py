"""Some images of COCO's train2017, to calibrate with: the whole split would be 19 GB."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from harness.cache import write_atomic
from harness.datasets.coco import read_instances
from harness.fetch.pictures import Picture, fetch_pictures

COUNT, SEED = 128, 0
"""100 to calibrate, 8 for parity, and some to choose among by another seed."""


def add_calibration(folder: Path, images: str, *, quiet: bool = False) -> None:
    """Add a part of train2017 to a COCO folder, as the split ``train2017-128``.

    ``annotations/instances_train2017.json`` gives the ids; it is deleted, because most of its
    images are not here.

    Args:
        images: address of the split's images.

    Raises:
        DownloadFailed: an image cannot be fetched.
        BadAnnotation: the annotations cannot be read.
        ResultsError: the folder cannot be written.
    """
    whole = folder / "annotations" / "instances_train2017.json"
    part = whole.with_name(f"instances_train2017-{COUNT}.json")
    if part.is_file() and not whole.is_file():
        return  # an earlier call came this far
    content = read_instances(whole)
    pictures = sorted(content.images, key=lambda picture: picture.id)
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(pictures))
    chosen = [pictures[index] for index in sorted(order[:COUNT].tolist())]
    place = folder / f"train2017-{COUNT}"
    wanted = [Picture(f"{images}/{one.file_name}", place / one.file_name) for one in chosen]
    gone = {picture.path.name for picture in fetch_pictures(wanted, quiet=quiet)}
    here = [one for one in chosen if one.file_name not in gone]
    ids = {one.id for one in here}
    content.images = here
    content.annotations = [one for one in content.annotations if one.image_id in ids]
    write_atomic(part, msgspec.json.encode(content))
    whole.unlink()
