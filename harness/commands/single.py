"""``detbench eval | latency | parity``: measure one artifact that is there already."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import config
from harness.commands.adopt import folder_of
from harness.commands.layers import show_layers
from harness.commands.run import carry_out, overrides, plugin_paths, started
from harness.errors import BadConfig
from harness.plan import plan_against, plan_artifact
from harness.registry import load_file


def eval(options: argparse.Namespace) -> int:  # the command's name; the builtin is not needed here
    """Score an artifact."""
    return _measure(options, "accuracy")


def latency(options: argparse.Namespace) -> int:
    """Time an artifact."""
    return _measure(options, "latency")


def parity(options: argparse.Namespace) -> int:
    """Compare an artifact with its golden answers, or exports layer by layer."""
    if options.layers:
        return show_layers(options)
    return _measure(options, "parity")


def _measure(options: argparse.Namespace, measure: str) -> int:
    for plugin in options.plugin:
        load_file(Path(plugin))
    asked = {"name": f"{measure}-{options.artifact.name}", **overrides(options)}
    matrix = started(config.load(None, {**asked, "measures": [measure]}), options)
    folder, plugins = folder_of(options.artifact, options.manifest), plugin_paths(options)
    if against := getattr(options, "against", None):
        plan = plan_against(against.resolve(), folder, matrix, plugins)
    elif matrix.accuracy.until is not None:
        raise BadConfig(
            "--until asks for the drop against a float parent: name its artifact with --against, or"
            " use detbench run on float and compressed exports together"
        )
    else:
        plan = plan_artifact(folder, matrix, plugins)
    return carry_out(plan, matrix, options)
