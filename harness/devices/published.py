"""Figures that others published: kept as records of their own kind, never among measured ones.

They lie in ``results/published/``, where no run is looked for, and a report shows them in a table
of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.cache import write_atomic
from harness.config import read_yaml
from harness.errors import BadConfig, ResultsError
from harness.records import SCHEMA, Record, decode, encode

SHIPPED = Path(__file__).with_name("published.yaml")
FOLDER = "published"


class Published(Record, frozen=True, kw_only=True):
    """One figure as its source states it. ``device`` is None where it depends on none.

    ``metric`` and ``unit`` are as a Measurement's; ``source`` says who published it and where.
    """

    model: str
    precision: str
    metric: str
    value: float
    unit: Literal["ns", "1", "MACs", "parameters"]
    source: str
    device: str | None = None
    unit_of_device: str | None = None
    threads: int | None = None
    data: str | None = None
    published: Literal[True] = True
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """File name: what it is, of what, on what."""
        parts = (self.device, self.unit_of_device, self.model, self.precision, self.metric)
        threads = f"t{self.threads}" if self.threads else None
        said = " ".join(str(part) for part in (*parts, threads, self.data) if part)
        return re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")


def read_file(path: Path = SHIPPED) -> list[Published]:
    """Figures of a YAML file with the key ``figures``.

    Raises:
        BadConfig: it is not that; two entries state the same figure.
    """
    plain: dict[str, Any] = read_yaml(path, "file of published figures", "figures: [...]")
    try:
        found = msgspec.convert(plain.get("figures"), list[Published])
    except msgspec.ValidationError as error:
        raise BadConfig(f"file of published figures {path} is wrong: {error}") from None
    names = [figure.name for figure in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadConfig(f"{path} states {twice[0]} twice: keep one")
    return found


def store(figures: Sequence[Published], base: Path) -> tuple[int, int]:
    """Write each figure below ``base``; answers how many are new and how many were there.

    Raises:
        ResultsError: one is there with another value.
    """
    new = 0
    for figure in figures:
        path = base / FOLDER / f"{figure.name}.json"
        data = encode(figure)
        if path.is_file():
            if path.read_bytes() != data:
                raise ResultsError(f"{path} states another figure: delete it to import this one")
            continue
        write_atomic(path, data)
        new += 1
    return new, len(figures) - new


def load(base: Path) -> list[Published]:
    """What was imported below ``base``.

    Raises:
        ResultsError: a file is damaged or holds something else.
    """
    files = sorted((base / FOLDER).glob("*.json"))
    return [decode(path.read_bytes(), Published, path) for path in files]
