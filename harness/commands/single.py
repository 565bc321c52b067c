"""``detbench eval | latency | parity``: measure one artifact that is there already."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import config
from harness.commands.run import carry_out, overrides, plugin_paths
from harness.plan import plan_artifact
from harness.registry import load_file


def eval(options: argparse.Namespace) -> int:  # the command's name; the builtin is not needed here
    """Score an artifact."""
    return _measure(options, "accuracy")


def latency(options: argparse.Namespace) -> int:
    """Time an artifact."""
    return _measure(options, "latency")


def parity(options: argparse.Namespace) -> int:
    """Compare an artifact with its golden answers."""
    return _measure(options, "parity")


def _measure(options: argparse.Namespace, measure: str) -> int:
    for plugin in options.plugin:
        load_file(Path(plugin))
    asked = {"name": f"{measure}-{options.artifact.name}", **overrides(options)}
    matrix = config.load(None, {**asked, "measures": [measure]})
    plan = plan_artifact(options.artifact.resolve(), matrix, plugin_paths(options))
    return carry_out(plan, matrix, options)
