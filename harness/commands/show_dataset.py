"""``detbench show dataset PATH``: what is in it, and what is wrong with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from harness import cli
from harness.datasets import DATASETS, open_dataset, split_paths
from harness.datasets.survey import ClassCount, Spread, Survey, survey
from harness.errors import BadConfig
from harness.records import encode

LISTED = 20


def show_dataset(options: argparse.Namespace) -> int:
    """Read all of a data set and print what was found; 1 where something is wrong with it."""
    if not options.path:
        raise BadConfig("name the data set: detbench show dataset voc:/path:val, or a folder")
    data = open_dataset(named(options.path), skip_bad=True)
    found = survey(data, tqdm(range(len(data)), desc="reading", unit="image", disable=None))
    if options.json:
        sys.stdout.write(encode(found).decode())
    else:
        print("\n".join(described(found)))
    return cli.FAILED if found.problems else 0


def named(text: str) -> str:
    """The data set's name in full: a bare path is looked at for what it holds."""
    if text.partition(":")[0] in DATASETS:
        return text
    paths, _ = split_paths(text)
    kind = _kind(paths[0])
    return f"{kind}:{text}"


def _kind(path: Path) -> str:
    if path.suffix == ".json" or any(path.glob("**/instances*.json")):
        return "coco"
    if any(path.glob("*-annotations-bbox.csv")):
        return "open-images"
    return "voc" if any(path.glob("**/Annotations")) else "images"


def described(found: Survey) -> list[str]:
    """The survey for people, a line each."""
    lines = [f"{found.dataset}:{found.split}", f"images      {found.images}"]
    lines += _spread_line("width", found.widths, "{:.0f}", "pixels")
    lines += _spread_line("height", found.heights, "{:.0f}", "pixels")
    if found.labelled:
        lines += [
            f"objects     {found.objects}, in COCO's sizes {found.small} small, {found.medium}"
            f" medium, {found.large} large",
            f"empty       {found.empty_images} images without an object",
        ]
        lines += _spread_line("box side", found.box_sides, "{:.3f}", "of the picture's")
        lines += _table(found)
    else:
        lines.append("objects     no ground truth")
    lines.append(f"problems    {len(found.problems) or 'none'}")
    lines += [f"  {problem}" for problem in found.problems[:LISTED]]
    if len(found.problems) > LISTED:
        lines.append(f"  … and {len(found.problems) - LISTED} more, all with --json")
    return lines


def _spread_line(name: str, spread: Spread | None, form: str, unit: str) -> list[str]:
    if spread is None:
        return []
    values = (form.format(value) for value in (spread.least, spread.median, spread.most))
    least, median, most = values
    return [f"{name:<10}  {least} to {most}, median {median} {unit}"]


def _table(found: Survey) -> list[str]:
    width = max(len("class"), *(len(one.name) for one in found.classes))
    head = f"{'class':<{width}}  objects   images  difficult  crowd"
    return [head, *(_row(one, width) for one in found.classes)]


def _row(one: ClassCount, width: int) -> str:
    marks = f"{one.difficult:>9}  {one.crowd:>5}"
    return f"{one.name:<{width}}  {one.objects:>7}  {one.images:>7}  {marks}"
