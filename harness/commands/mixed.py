"""``detbench mixed``: an int8 export with as few layers in float as a drop in mAP allows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from harness import artifacts, config
from harness.commands.export import keeping
from harness.commands.layers import traced
from harness.commands.run import plugin_paths
from harness.errors import BadConfig
from harness.interfaces import EXPORTERS
from harness.layers import compare_layers, ranked
from harness.mixed import search
from harness.registry import load_file
from harness.requests import parse
from harness.trials import Trial, Trials, row

FLOAT = "torch_float"


def mixed(options: argparse.Namespace) -> int:
    """Try, and say how to export what was found; 1 where nothing was."""
    for plugin in options.plugin:
        load_file(Path(plugin))
    name = parse(options.exporter).name
    if "keep_float" not in EXPORTERS.get(name).options:
        able = [one for one in EXPORTERS.names() if "keep_float" in EXPORTERS.get(one).options]
        raise BadConfig(f"{name} cannot keep layers in float: give {' or '.join(able)}")
    if not 0 <= options.drop < 100:
        raise BadConfig(f"--drop {options.drop} is no number of points: give 0 to 100, such as 1")
    asked = {**config.overrides(options.settings), "models": [options.model]}
    for key in ("weights", "labels", "data", "images"):
        if getattr(options, key) is not None:
            asked[key] = getattr(options, key)
    matrix = config.load(None, asked)
    recipe = options.recipe or "none"
    with Trials(matrix, tuple(plugin_paths(options))) as trials:

        def attempt(layers: Sequence[str], exporter: str = options.exporter) -> Trial:
            trial = trials.run(recipe, keeping(exporter, layers) if layers else exporter)
            said(options, f"{len(layers)} layers in float", trial)
            return trial

        parent = trials.run(recipe, FLOAT)
        said(options, "float", parent)
        first = attempt(())
        golden = artifacts.golden(parent.folder)
        if golden is None:
            raise BadConfig(f"{parent.folder}: {artifacts.NO_REFERENCE}")
        order: list[str] = []
        if first.drop > options.drop / 100:
            sqnr = compare_layers(
                traced(parent.folder, golden.images), traced(first.folder, golden.images)
            )
            order = [layer for layer, _ in ranked(sqnr)]
        found = search(first, order, attempt, options.drop / 100)
    exporter = keeping(options.exporter, found.layers) if found.layers else options.exporter
    if options.json:
        print(json.dumps({"enough": found.enough, "exporter": exporter, "drop": found.trial.drop}))
    elif found.enough:
        print(f"detbench export {options.model} '{exporter}'")
    else:
        print(
            f"all {len(found.layers)} layers in float still lose {100 * found.trial.drop:.2f}"
            f" points, more than {options.drop:g}: the loss is elsewhere"
        )
    return 0 if found.enough else 1


def said(options: argparse.Namespace, label: str, trial: Trial) -> None:
    """Print a trial's row for a person."""
    if not options.json:
        print(row(label, trial), flush=True)
