"""``detbench list`` and ``detbench show``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness.commands.list_weights import weight_rows
from harness.commands.show_dataset import show_dataset
from harness.datasets import DATASETS
from harness.errors import BadConfig
from harness.extras import installed, require
from harness.interfaces import EXPORTERS, MODELS, RUNNERS
from harness.profile import Profile, profile
from harness.recipe_interface import RECIPES
from harness.records import ModelSpec
from harness.registry import load_file
from harness.requests import parse
from harness.weights import shipped_manifests


def list(options: argparse.Namespace) -> int:  # the command's name; the builtin is not needed here
    """Names, and for plug-ins what they need and whether it is here."""
    for plugin in options.plugin:
        load_file(Path(plugin))
    if options.profile and options.kind != "models":
        raise BadConfig(f"only models have a profile: leave --profile out for {options.kind}")
    rows = _profiles(options.json) if options.profile else _rows(options.kind)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print("  ".join(str(value) for value in row.values()).rstrip())
    return 0


def _rows(kind: str) -> Any:
    if kind == "models":
        return [{"name": name} for name in MODELS.names()]
    if kind == "recipes":
        return [
            {"name": name, "options": dict(RECIPES.get(name).options)} for name in RECIPES.names()
        ]
    if kind == "datasets":
        return [{"name": name, "what": what} for name, what in DATASETS.items()]
    if kind == "weights":
        return weight_rows()
    registry: Any = EXPORTERS if kind == "exporters" else RUNNERS
    rows = []
    for name in registry.names():
        plugin = registry.get(name)
        here = all(installed(module) for module in plugin.modules)
        need = "installed" if here else f"pip install -e '.[{plugin.extra}]'"
        formats = getattr(plugin, "format", None) or ", ".join(sorted(plugin.formats))
        rows.append({"name": f"{name:<14}", "formats": f"{formats:<28}", "state": need})
    return rows


def show(options: argparse.Namespace) -> int:
    """A model's input, priors, classes, source and size; or what is in a data set."""
    if options.model == "dataset":
        return show_dataset(options)
    if options.path:
        raise BadConfig(f"one model at a time: '{options.path}' is one word too many")
    from harness.model_file import take
    from harness.plan import static_options
    from harness.requests import complete

    for plugin in options.plugin:
        load_file(Path(plugin))
    require("torch", extra="torch")
    (model,) = take([options.model], [])
    request = parse(model)
    factory = MODELS.get(request.name)
    given = complete(request.options, static_options(request.name), f"model {request.name}")
    labels = _labels(request.name, given)
    spec = factory(labels, **given)
    found = profile(spec)
    facts = _facts(spec, found)
    if options.json:
        stages = [stage._asdict() for stage in found.stages]
        print(json.dumps({**facts, **found.numbers(), "stages": stages}, indent=1))
        return 0
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key:<{width}}  {value}")
    print(f"\n{'part':<24}{'channels x h x w':>18}{'parameters':>12}{'MACs':>12}")
    for stage in found.stages:
        output = " x ".join(map(str, stage.output)) or "never runs"
        macs = f"{stage.macs / 1e6:.2f} M"
        print(f"{stage.part:<24}{output:>18}{stage.parameters:>12,}{macs:>12}")
    return 0


def _labels(name: str, given: dict[str, Any]) -> tuple[str, ...]:
    """The classes of the shipped weights, or Pascal VOC's number of them where none are shipped."""
    for manifest in shipped_manifests():
        if manifest["model"] == name and manifest["model_options"] == given:
            return tuple(manifest["labels"])
    return ("background", *(f"class{number}" for number in range(1, 21)))


def _costs(found: Profile) -> dict[str, str]:
    """What a network costs on paper, as shown to people."""
    return {
        "MACs": f"{found.macs / 1e6:,.1f} M",
        "size fp32": f"{found.size_bytes(4) / 1e6:.2f} MB",
        "size fp16": f"{found.size_bytes(2) / 1e6:.2f} MB",
        "size int8": f"{found.size_bytes(1) / 1e6:.2f} MB",
        "activations, peak": f"{found.activation_bytes / 1e6:.2f} MB in fp32",
    }


def _profiles(numbers: bool) -> Any:
    """Every model at its defaults with a background and one class, so that backbones compare."""
    rows = []
    for name in MODELS.names():
        spec = MODELS.get(name)(("background", "object"))
        found = profile(spec)
        size = f"{spec.image.height} x {spec.image.width}"
        parameters = {"parameters": f"{found.parameters / 1e6:.2f} M"}
        costs = found.numbers() if numbers else {**parameters, **_costs(found)}
        rows.append({"name": name, "input": size, **costs})
    return rows


def _facts(spec: ModelSpec, found: Profile) -> dict[str, Any]:
    image = spec.image
    return {
        "model": spec.name,
        "options": dict(spec.options),
        "input": f"{image.height} x {image.width} {image.channel_order}, {image.resize}",
        "mean, std": f"{image.mean}, {image.std} on 0..255",
        "priors": int(spec.priors.shape[0]),
        "classes": f"{len(spec.labels)} with the background",
        "labels": ", ".join(spec.labels),
        "parameters": found.parameters,
        **_costs(found),
        "decoding": str(spec.decoding),
        "paper": spec.source.paper,
        "repository": spec.source.repository,
        "licence": spec.source.licence,
    }
