"""``detbench export``: one model by one exporter, into a folder."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import artifacts, config
from harness.cache import cache_dir
from harness.children import excerpt, run_child
from harness.commands.run import plugin_paths
from harness.echo import echoed
from harness.errors import ExportFailed, Unsupported
from harness.estimate import export_limit_s
from harness.execute import intact
from harness.model_file import take
from harness.plan import export_tasks
from harness.records import encode
from harness.registry import load_file
from harness.requests import Request, parse

TUNING = "tuning"
"""What lines of a child's log begin with that say how a search goes."""


def keeping(exporter: str, layers: Sequence[str]) -> str:
    """The request for ``exporter`` with these layers in float."""
    given = parse(exporter)
    options = {**given.options, "keep_float": "/".join(layers)}
    return str(Request(name=given.name, options=options))


def export(options: argparse.Namespace) -> int:
    """Export in a child process, then copy the artifact to where it is wanted."""
    for plugin in options.plugin:
        load_file(Path(plugin))
    plugins = plugin_paths(options)
    asked = {**config.overrides(options.settings), "models": take([options.model], plugins)}
    asked["exporters"] = [options.exporter]
    if options.tune:
        joint = "," if ":" in options.exporter else ":"
        asked["exporters"] = [f"{options.exporter}{joint}tune={options.tune}"]
    if options.keep_float:
        asked["exporters"] = [keeping(asked["exporters"][0], options.keep_float.split(","))]
    if options.recipe:
        asked["recipes"] = [options.recipe]
    for key in ("weights", "labels"):
        if getattr(options, key):
            asked[key] = getattr(options, key)
    matrix = config.load(None, asked)
    task = export_tasks(matrix, plugins)[0]
    folder = Path(task.folder)
    if options.output:
        artifacts.expect_new(options.output)
    if options.force or not intact(folder):
        name = f"export-{task.fingerprint[:10]}"
        logs = cache_dir("logs")
        limit_s = export_limit_s(task, matrix.timeout_s)
        with echoed(logs / "logs" / f"{name}.log", TUNING):
            result = run_child(task, folder=logs, name=name, timeout_s=limit_s)
        if result.state == "unsupported":
            raise Unsupported(str(result.error))
        if result.state != "ok":
            if said := excerpt(logs / "logs" / f"{name}.log"):
                print(said, file=sys.stderr)
            raise ExportFailed(str(result.error))
    if options.output:
        shutil.copytree(folder, options.output, dirs_exist_ok=True)
        folder = options.output
    artifact = artifacts.load(folder)
    if options.json:
        sys.stdout.write(encode(artifact).decode())
    else:
        print(f"{folder}: {artifact.id}, {artifact.format}, {artifact.size_bytes / 1e6:.2f} MB")
    return 0
