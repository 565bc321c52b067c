"""A model described in a YAML file: read here without torch, built by the models' own parts.

A file is named wherever a model's name is: ``--models mine.yaml``. It is then a plug-in file like
any other: what depends on it depends on its text, and child processes load it by its path.
docs/your-own-model.md has an example.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.config import read_yaml
from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.policies import policy
from harness.records import ModelSpec, Record
from harness.registry import ROOT, load_file
from harness.requests import Request, parse

SUFFIXES = (".yaml", ".yml")


class PriorRule(Record, frozen=True, kw_only=True):
    """The priors of one feature map, in pixels (`models._priors.ssd_level`)."""

    smallest: float
    largest: float
    ratios: tuple[float, ...] = (2.0, 3.0)
    stride: float | None = None


class ModelFile(Record, frozen=True, kw_only=True):
    """What a YAML file says. ``name`` is the file's own where it says none.

    Attributes:
        size: height and width of the image, or the side of a square one, in pixels.
        width: multiplies the backbone's channels.
        extras: channels of the maps of stride 2 after the backbone's own.
        heads: depthwise-separable, or plain convolutions; the extra maps are made alike.
        priors: one entry a map, largest first.
        mean: on pixels of 0..255.
        decoding: a policy's name and changes to it.
        labels: background first; the weights must know the same.
    """

    name: str
    backbone: Literal["etinynet", "mb1", "mb2", "mb3_large", "mb3_small", "squeezenet1_1", "vgg16"]
    size: int | tuple[int, int]
    priors: tuple[PriorRule, ...]
    width: float = 1.0
    extras: tuple[int, ...] = ()
    heads: Literal["lite", "plain"] = "lite"
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    decoding: dict[str, Any] = msgspec.field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    source: str = ""

    @property
    def height_width(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def take(models: Iterable[str], plugins: list[str]) -> list[str]:
    """The models asked for by name: those that are files are loaded and added to ``plugins``.

    Raises:
        BadConfig: a file that cannot be followed.
    """
    found = []
    for text in models:
        request = parse(text)
        if request.name.endswith(SUFFIXES):
            path = str(Path(request.name).resolve())
            load_file(Path(path))
            if path not in plugins:
                plugins.append(path)
            request = Request(name=read(Path(path)).name, options=request.options)
        found.append(str(request))
    return found


def read(path: Path) -> ModelFile:
    """What the file says.

    Raises:
        BadConfig: no such file, not YAML, an unknown key, a value that makes no sense.
    """
    plain = {"name": path.stem, **read_yaml(path, "model", "backbone: mb2")}
    try:
        described = msgspec.convert(plain, ModelFile)
    except msgspec.ValidationError as error:
        raise BadConfig(f"model {path} is wrong: {error}") from None
    _check(described, path)
    return described


def register(path: Path) -> None:
    """Make the file's model known by its name.

    Raises:
        BadConfig: see `read`; a name that another model has.
    """
    described = read(path)
    if (ROOT / "models" / f"{described.name}.py").is_file():
        raise BadConfig(
            f"model {path} is called '{described.name}' as one of detbench's own: give it another"
            " name"
        )

    def factory(labels: tuple[str, ...]) -> ModelSpec:
        made: ModelSpec = importlib.import_module("models._from_file").make(
            described, labels, str(path)
        )
        return made

    factory.__name__ = described.name
    MODELS.register(factory, where=str(path.resolve()))


def _check(described: ModelFile, path: Path) -> None:
    height, width = described.height_width
    rules = described.priors
    facts = (
        (min(height, width) >= 32, f"size {described.size} is below 32 pixels"),
        (0.1 <= described.width <= 4, f"width {described.width} is outside 0.1 to 4"),
        (all(count >= 1 for count in described.extras), "an extra map has no channels"),
        (min(described.std) > 0, f"std {described.std} must be above 0"),
        (bool(rules), "priors is empty"),
        (
            all(0 < one.smallest <= one.largest for one in rules),
            "priors need 0 < smallest <= largest",
        ),
        (all(ratio > 0 for one in rules for ratio in one.ratios), "a ratio must be above 0"),
        (described.name.isidentifier(), f"name '{described.name}' is no plain word"),
    )
    for holds, fault in facts:
        if not holds:
            raise BadConfig(f"model {path} is wrong: {fault}: see docs/your-own-model.md")
    rest = dict(described.decoding)
    policy(str(rest.pop("policy", "detbench")), **rest)
