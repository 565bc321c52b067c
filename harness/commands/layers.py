"""``detbench parity FLOAT --layers DIR…``: in what layer exports leave the float network."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness import artifacts
from harness.errors import BadConfig, Unsupported
from harness.images import Preprocessor
from harness.interfaces import RUNNERS, RunOptions
from harness.layers import compare_layers, suggest
from harness.records import Artifact

Images = NDArray[Any]


def show_layers(options: argparse.Namespace) -> int:
    """Print the SQNR of every layer of every export, and what follows from it."""
    folders: list[Path] = options.layers
    golden = artifacts.golden(options.artifact)
    if golden is None:
        raise BadConfig(f"{options.artifact}: {artifacts.NO_REFERENCE}")
    columns = {
        artifacts.load(folder).id: compare_layers(
            traced(options.artifact, golden.images, options.runners),
            traced(folder, golden.images, options.runners),
        )
        for folder in folders
    }
    if options.json:
        said = {name: {"sqnr_db": one, **suggest(one)._asdict()} for name, one in columns.items()}
        print(json.dumps(said, indent=1))
        return 0
    for line in table(columns):
        print(line)
    for name, values in columns.items():
        found = suggest(values)
        bad = f"the first bad layer is {found.first_bad}" if found.first_bad else "no layer is bad"
        keep = ",".join(found.keep[:4])
        advice = f"; try --keep-float {keep}" if keep else ""
        print(f"{name}: {bad}{advice}")
    return 0


def table(columns: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A row for each layer, SQNR in dB, a column for each export."""
    layers = dict.fromkeys(name for values in columns.values() for name in values)
    width = max(len("layer, SQNR in dB"), *(len(name) for name in layers))
    wide = [max(len(name), 6) for name in columns]
    heads = (f"{name:>{size}}" for name, size in zip(columns, wide, strict=True))
    yield "  ".join([f"{'layer, SQNR in dB':{width}}", *heads])
    for layer in layers:
        cells = (
            f"{values[layer]:{size}.1f}" if layer in values else f"{'–':>{size}}"
            for values, size in zip(columns.values(), wide, strict=True)
        )
        yield "  ".join([f"{layer:{width}}", *cells])


def traced(
    folder: Path, images: Images, runners: str | None = None
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """What the layers of an artifact answer to golden images, by the first runner that shows it.

    Raises:
        Unsupported: none does.
    """
    artifact = artifacts.load(folder)
    prepare = Preprocessor(artifact.image, artifact.inputs[0])
    prepared = (prepare(image) for image in images)
    names = runners.split(",") if runners else RUNNERS.names()
    return _first(artifact, folder, names, prepared)


def _first(
    artifact: Artifact, folder: Path, names: list[str], prepared: Iterator[Images]
) -> Iterator[Mapping[str, NDArray[Any]]]:
    reasons = []
    for name in names:
        runner = RUNNERS.get(name)()
        if artifact.format not in runner.formats or runner.measures_harness_only:
            continue
        try:
            return runner.trace(artifact, folder, RunOptions(), prepared)
        except Unsupported as error:
            reasons.append(str(error))
    raise Unsupported(
        f"{folder}: {'; '.join(reasons) or f'no runner here opens {artifact.format}'}"
    )
