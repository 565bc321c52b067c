"""``detbench adopt``: a user's own .onnx or .tflite file as an artifact's folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import artifacts
from harness.foreign import adopt as make
from harness.records import encode
from harness.registry import load_file


def adopt(options: argparse.Namespace) -> int:
    """Make the folder and say what it holds."""
    for plugin in options.plugin:
        load_file(Path(plugin))
    if options.output:
        artifacts.expect_new(options.output)
    folder = make(options.file, options.manifest, options.output)
    artifact = artifacts.read_manifest(folder)
    if options.json:
        sys.stdout.write(encode(artifact).decode())
        return 0
    print(f"{folder}: {artifact.id}, {artifact.format} {artifact.precision}")
    for side, specs in (("takes", artifact.inputs), ("answers", artifact.outputs)):
        shown = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs)
        print(f"  {side} {shown}")
    image = artifact.image
    print(f"  image (pixel - {image.mean}) / {image.std}, {image.channel_order}")
    print(f"  outputs are {artifact.output_kind}, {len(artifact.labels) - 1} classes")
    print(f"  {artifacts.NO_REFERENCE}")
    return 0


def folder_of(path: Path, manifest: Path | None = None) -> Path:
    """The artifact's folder that ``path`` is, or that its file is adopted into."""
    return make(path.resolve(), manifest) if path.is_file() else path.resolve()
