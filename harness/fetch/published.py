"""Weights that others published: where they lie, what pins them, what their authors say of them.

The list is ``models/weights/published.yaml``; reading it needs no framework.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.cache import cache_dir
from harness.errors import BadConfig, UnknownName
from harness.fetch.remote import Remote
from harness.records import Options, Record
from harness.registry import ROOT, suggest

LIST = ROOT / "models" / "weights" / "published.yaml"


class Figure(Record, frozen=True, kw_only=True):
    """A figure as its ``source`` prints it; always shown with the word published."""

    data: str
    figure: str
    source: str


class PublishedWeights(Record, frozen=True, kw_only=True):
    """One published file.

    ``kind`` is ``detector`` for weights of a whole detector, ``backbone`` for those that a training
    starts from. ``labels`` has the background first; it is empty for a backbone.
    """

    name: str
    model: str
    kind: Literal["detector", "backbone"]
    file: Remote
    licence: str
    trained_on: str
    model_options: Options = msgspec.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    published: tuple[Figure, ...] = ()

    @property
    def path(self) -> Path:
        """Where the file stands in the cache, fetched or not. Raises ResultsError."""
        return cache_dir("weights", self.name) / self.file.file_name


def published(name: str) -> PublishedWeights:
    """The entry called ``name``. Raises UnknownName."""
    known = all_published()
    if name not in known:
        raise UnknownName(f"no weights '{name}' are published: {suggest(name, known)}")
    return known[name]


def all_published() -> dict[str, PublishedWeights]:
    """All entries by name."""
    return read_list(LIST)


@functools.cache
def read_list(path: Path) -> dict[str, PublishedWeights]:
    """The entries of a list file.

    Raises:
        BadConfig: it is not such a list.
    """
    import yaml

    try:
        plain: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        sets = plain["label_sets"]
        entries = {
            name: {**entry, "name": name, "labels": sets.get(entry.get("labels"), ())}
            for name, entry in plain["weights"].items()
        }
        return msgspec.convert(entries, dict[str, PublishedWeights])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadConfig(f"{path} is not a list of published weights ({error})") from None
