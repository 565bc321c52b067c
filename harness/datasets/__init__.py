"""Data sets by name: ``shapes:val``, ``voc:/path:val``, ``coco:/path:val2017``.

The readers are imported when they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadConfig, UnknownName
from harness.interfaces import Dataset
from harness.registry import suggest

if TYPE_CHECKING:
    from harness.datasets._files import FileDataset

DATASETS = {
    "shapes": "drawn scenes, nothing to download: shapes:val, shapes:train, shapes:calibration",
    "voc": "folders in Pascal VOC's layout: voc:/path, voc:/path:split or voc:/a+/b:split",
    "coco": "COCO instances, a folder or its JSON file: coco:/path, coco:/path:split or coco:/a+/b",
    "open-images": "Open Images boxes, official or pytorch-ssd's: open-images:/path:validation",
    "images": "pictures without ground truth, for latency and label-free comparison: images:/path",
}
"""Name to what it is and how to write it."""

WITHOUT = "-without-"
"""Between a split and the one whose images it leaves out."""


def open_dataset(text: str, *, limit: int | None = None, skip_bad: bool = False) -> Dataset:
    """Open the data set that ``text`` names; nothing is read yet that can wait.

    Args:
        text: ``name``, ``name:path`` or ``name:path:split``; ``shapes`` alone is ``shapes:val``,
            and ``shapes:train:20000`` has so many images. Several roots are one data set, written
            ``voc:/a+/b:split``, and ``voc:/a:train-without-val`` leaves out what is in both.
        limit: take at most so many images, the first ones.
        skip_bad: leave out annotations that contradict the file as a whole (an id listed twice, a
            box of no image); each is named in ``dropped``.

    Raises:
        UnknownName: no such data set or split.
        BadConfig: no path, nothing usable there, or an impossible limit.
        BadAnnotation: the annotations cannot be read, or contradict themselves.
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
    paths, split = split_paths(rest)
    for path in paths:
        if not path.exists():
            raise BadConfig(f"data set '{text}': {path} does not exist")
    if len(paths) > 1 and name == "images":
        raise BadConfig(f"data set '{text}': images takes one folder, write one path")
    return _open_files(name, paths, split, limit, skip_bad)


def split_path(text: str) -> tuple[Path, str | None]:
    """``/path:split`` apart; a path that exists may itself hold colons."""
    whole = Path(text).expanduser()
    path, colon, split = text.rpartition(":")
    if whole.exists() or not colon or not path or not split or "/" in split:
        return whole, None
    return Path(path).expanduser(), split


def split_paths(text: str) -> tuple[list[Path], str | None]:
    """``/a+/b:split`` apart; a path that exists may itself hold a plus sign."""
    path, split = split_path(text)
    if path.exists() or "+" not in str(path):
        return [path], split
    return [Path(part).expanduser() for part in str(path).split("+")], split


def _open_files(
    name: str, paths: list[Path], split: str | None, limit: int | None, skip_bad: bool
) -> Dataset:
    if name == "images":
        from harness.datasets.images import Images

        if split is not None or not paths[0].is_dir():
            raise BadConfig(f"images:{paths[0]} is a folder without splits: write images:/path")
        return Images(paths[0], limit=limit)
    if split is not None and WITHOUT in split:
        from harness.datasets.without import Without

        kept, _, left = split.partition(WITHOUT)
        wanted, other = (_open_roots(name, paths, part, None, skip_bad) for part in (kept, left))
        return Without(wanted, other, limit)
    return _open_roots(name, paths, split, limit, skip_bad)


def _open_roots(
    name: str, paths: list[Path], split: str | None, limit: int | None, skip_bad: bool
) -> FileDataset:
    if len(paths) == 1:
        return _open_root(name, paths[0], split, limit, skip_bad)
    from harness.datasets.joined import Joined

    parts = [_open_root(name, path, split, None, skip_bad) for path in paths]
    # a VOC root may be below the path that was given
    roots = [getattr(part, "folder", path) for part, path in zip(parts, paths, strict=True)]
    return Joined(parts, [root.stem for root in roots], limit=limit)


def _open_root(
    name: str, path: Path, split: str | None, limit: int | None, skip_bad: bool
) -> FileDataset:
    if name == "voc":
        from harness.datasets.voc import Voc

        return Voc(path, split, limit=limit, skip_bad=skip_bad)
    if name == "coco":
        from harness.datasets.coco import Coco

        return Coco(path, split, limit=limit, skip_bad=skip_bad)
    from harness.datasets.open_images import OpenImages

    return OpenImages(path, split, limit=limit, skip_bad=skip_bad)


def _open_shapes(text: str, rest: str, limit: int | None) -> Dataset:
    from harness.datasets.shapes import Shapes

    split, colon, number = rest.partition(":")
    if colon and not number.isdecimal():
        raise BadConfig(f"data set '{text}': '{number}' is no count, write shapes:{split}:20000")
    data = Shapes(split or "val", int(number) if colon else None, cached=True)
    return data if limit is None else Shapes(data.split, min(limit, len(data)), cached=True)
