"""The training images beside the scored ones: what calibrates unless something is named."""

from __future__ import annotations

from pathlib import Path

from harness.datasets import split_paths

DRAWN = "shapes:calibration"


def training_split(text: str) -> str | None:
    """The data set of training images that belongs to the one that ``text`` names, or None.

    For COCO this is train2017 in the same folder, whole or the part that ``detbench fetch`` took;
    for VOC and Open Images it is ``train``.
    """
    name, _, rest = text.partition(":")
    if name == "shapes":
        return DRAWN
    if name not in SEEK or not rest:
        return None
    paths, split = split_paths(rest)
    for wanted in ("train2017", "train"):
        for found in SEEK[name](paths[0]):
            if found.startswith(wanted) and found not in (split, "trainval"):
                root = "+".join(str(_folder(path)) for path in paths)
                return f"{name}:{root}:{found}"
    return None


def _folder(path: Path) -> Path:
    """The folder of the data set, where its instances file is named."""
    if not path.is_file():
        return path
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _coco_splits(path: Path) -> list[str]:
    from harness.datasets.coco import split_name

    folder = _folder(path)
    places = (folder, folder / "annotations")
    return sorted(split_name(f) for place in places for f in place.glob("instances*.json"))


def _voc_splits(path: Path) -> list[str]:
    from harness.datasets.voc import find_root

    return sorted(file.stem for file in (find_root(path) / "ImageSets" / "Main").glob("train.txt"))


def _open_images_splits(path: Path) -> list[str]:
    from harness.datasets.open_images import all_boxes

    return sorted(all_boxes(path))


SEEK = {"coco": _coco_splits, "voc": _voc_splits, "open-images": _open_images_splits}
