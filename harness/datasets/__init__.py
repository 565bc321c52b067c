"""Data sets by name: ``shapes:val``, ``voc:/path:val``, ``coco:/path:val2017``.

The readers are imported when they are asked for.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import BadConfig, UnknownName
from harness.interfaces import Dataset
from harness.registry import suggest

DATASETS = {
    "shapes": "drawn scenes, nothing to download: shapes:val, shapes:train, shapes:calibration",
    "voc": "a folder in Pascal VOC's layout: voc:/path or voc:/path:split",
    "coco": "COCO instances, a folder or its JSON file: coco:/path or coco:/path:split",
}
"""Name to what it is and how to write it."""


def open_dataset(text: str, *, limit: int | None = None) -> Dataset:
    """Open the data set that ``text`` names; nothing is read yet that can wait.

    Args:
        text: ``name``, ``name:path`` or ``name:path:split``; ``shapes`` alone is ``shapes:val``,
            and ``shapes:train:20000`` has so many images.
        limit: take at most so many images, the first ones.

    Raises:
        UnknownName: no such data set or split.
        BadConfig: no path, nothing usable there, or an impossible limit.
    """
    name, _, rest = text.partition(":")
    if name not in DATASETS:
        raise UnknownName(f"unknown data set '{text}': {suggest(name, DATASETS)}")
    if limit is not None and limit < 1:
        raise BadConfig(f"the limit of images is {limit}, expected 1 or more")
    if name == "shapes":
        return _open_shapes(text, rest, limit)
    if not rest:
        raise BadConfig(
            f"data set '{text}' lacks its path: write {name}:/path or {name}:/path:split"
        )
    path, split = split_path(rest)
    if not path.exists():
        raise BadConfig(f"data set '{text}': {path} does not exist")
    if name == "voc":
        from harness.datasets.voc import Voc

        return Voc(path, split, limit=limit)
    from harness.datasets.coco import Coco

    return Coco(path, split, limit=limit)


def split_path(text: str) -> tuple[Path, str | None]:
    """``/path:split`` apart; a path that exists may itself hold colons."""
    whole = Path(text).expanduser()
    path, colon, split = text.rpartition(":")
    if whole.exists() or not colon or not path or not split or "/" in split:
        return whole, None
    return Path(path).expanduser(), split


def _open_shapes(text: str, rest: str, limit: int | None) -> Dataset:
    from harness.datasets.shapes import Shapes

    split, colon, number = rest.partition(":")
    if colon and not number.isdecimal():
        raise BadConfig(f"data set '{text}': '{number}' is no count, write shapes:{split}:20000")
    data = Shapes(split or "val", int(number) if colon else None, cached=True)
    return data if limit is None else Shapes(data.split, min(limit, len(data)), cached=True)
