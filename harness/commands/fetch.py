"""``detbench fetch``: published weights and public data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cache import cache_dir
from harness.errors import BadConfig
from harness.fetch.datasets import SETS, fetch_set
from harness.fetch.published import all_published, published
from harness.fetch.weights import fetch_weights

OPEN_IMAGES = "open-images"


def fetch(options: argparse.Namespace) -> int:
    """Fetch what is named; prints where it lies, and how a data set is written."""
    if options.what == "weights":
        return _weights(options)
    if options.names:
        raise BadConfig(f"detbench fetch {options.what} takes no names: {options.names[0]}")
    parent: Path = options.output or cache_dir("data")
    if options.what == OPEN_IMAGES:
        return _open_images(options, parent)
    entry = SETS[options.what]
    folder = fetch_set(entry, parent, quiet=options.quiet)
    print(f"{folder}\nuse it with  --data {entry.use.format(folder)}\nlicence: {entry.licence}")
    return 0


def _weights(options: argparse.Namespace) -> int:
    if not options.names:
        raise BadConfig(f"name the weights to fetch: {', '.join(all_published())}")
    entries = [published(name) for name in options.names]
    for entry in entries:
        print(fetch_weights(entry, quiet=options.quiet))
    return 0


def _open_images(options: argparse.Namespace, parent: Path) -> int:
    from harness.fetch.open_images import fetch_open_images

    classes = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    if not classes:
        raise BadConfig("name the classes: --classes Car,'Traffic light'")
    if options.images is not None and options.images < 1:
        raise BadConfig(f"--images is {options.images}, expected at least 1")
    folder = fetch_open_images(
        classes, options.split, parent, limit=options.images, quiet=options.quiet
    )
    print(f"{folder}\nuse it with  --data {OPEN_IMAGES}:{folder}:{options.split}")
    print("licence: annotations CC BY 4.0; the photos were listed as CC BY 2.0")
    return 0
