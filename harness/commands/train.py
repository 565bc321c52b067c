"""``detbench train``: train a model; the same command goes on where a killed one stopped."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness.errors import BadConfig, MissingExtra
from harness.extras import require
from harness.model_file import take
from harness.plan import static_options
from harness.registry import load_file
from harness.report import training as training_report
from harness.requests import complete, parse

FLAGS = {
    "data": "data",
    "val": "evaluate_data",
    "labels": "labels",
    "start_from": "start_from",
    "device": "device",
    "workers": "workers",
    "seed": "seed",
}
"""Training options that have a flag of their own."""


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
    if options.model is None:
        raise BadConfig("no model to train: name one, as  detbench list models  shows them")
    if options.output is None:
        raise BadConfig("no folder to write to: give one with -o")
    for plugin in options.plugin:
        load_file(Path(plugin))
    (model,) = take([options.model], [])
    request = parse(model)
    given = complete(request.options, static_options(request.name), f"model {request.name}")
    flags = [
        f"{name}={value}"
        for flag, name in FLAGS.items()
        if (value := getattr(options, flag)) is not None
    ]
    asked = from_settings(request.name, given, str(options.output), [*flags, *options.settings])
    weights = start(asked)
    manifest = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    report = _report(options.output)
    if options.json:
        print(json.dumps(manifest, indent=1))
        return 0
    print(f"weights: {weights}, {manifest['size_bytes'] / 1e6:.2f} MB")
    print(f"score: {_score(manifest)}")
    if report is not None:
        print(f"report: {report}")
    return 0


def _score(manifest: dict[str, Any]) -> str:
    """What the weights are worth, in a line."""
    score = manifest["score"]
    if score is None or score["value"] is None:
        return "not asked for"
    classes = ", ".join(f"{k} {v:.3f}" for k, v in score["per_class"].items() if v is not None)
    chosen = manifest["best"]
    when = f"; the best validated, after {chosen['images']} images" if chosen else ""
    return (
        f"VOC12 mAP@.5 {score['value']:.3f} on {score['images']} images of {score['data']}"
        f" ({classes}){when}"
    )


def _report(folder: Path) -> Path | None:
    """The curves as a page; without what draws them, a sentence."""
    try:
        return training_report.write(folder)
    except MissingExtra as error:
        print(f"no report.html: {error}", file=sys.stderr)
        return None
