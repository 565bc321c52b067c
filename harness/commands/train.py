"""``detbench train``: train a model; the same command goes on where a killed one stopped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.errors import BadConfig
from harness.extras import require
from harness.model_file import take
from harness.plan import static_options
from harness.registry import load_file
from harness.requests import complete, parse


def train(options: argparse.Namespace) -> int:
    """Train and say where the weights are and how they score."""
    require("torch", extra="torch")
    from models.training import describe, from_settings
    from models.training import train as start

    if options.list_options:
        known = describe()
        width = max(len(name) for name in known)
        print("\n".join(f"{name:<{width}}  {default}" for name, default in known.items()))
        return 0
    if options.output is None:
        raise BadConfig("no folder to write to: give one with -o")
    for plugin in options.plugin:
        load_file(Path(plugin))
    (model,) = take([options.model], [])
    request = parse(model)
    given = complete(request.options, static_options(request.name), f"model {request.name}")
    asked = from_settings(request.name, given, str(options.output), options.settings)
    weights = start(asked)
    manifest = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    if options.json:
        print(json.dumps(manifest, indent=1))
    else:
        print(f"weights: {weights}, {manifest['size_bytes'] / 1e6:.2f} MB")
        print(f"score: {manifest['score'] or 'not asked for'}")
    return 0
