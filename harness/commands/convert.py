"""``detbench convert``: a checkpoint that others wrote, as ours, with its classes beside it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.cache import sha256_file
from harness.errors import BadConfig
from harness.extras import require
from harness.fetch.published import all_published
from harness.interfaces import MODELS
from harness.plan import static_options
from harness.registry import load_file
from harness.requests import complete, parse
from harness.weights import read_labels


def convert(options: argparse.Namespace) -> int:
    """Load the weights into the model, all or nothing, and write them with a manifest."""
    for plugin in options.plugin:
        load_file(Path(plugin))
    request = parse(options.model)
    given = complete(request.options, static_options(request.name), f"model {request.name}")
    output: Path = options.output
    if output.suffix != ".safetensors":
        raise BadConfig(f"output {output} ends in '{output.suffix}': end it in .safetensors")
    labels = _labels(request.name, options.labels)
    require("torch", extra="torch")
    from models._checkpoint import load_weights, save_weights

    network = MODELS.get(request.name)(labels, **given).build()
    digest = load_weights(network, options.checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, output, half=False)
    manifest = {
        "model": request.name,
        "model_options": given,
        "labels": labels,
        "sha256": sha256_file(output),
        "size_bytes": output.stat().st_size,
        "converted_from": {"name": options.checkpoint.name, "sha256": digest},
    }
    beside = output.with_suffix(".json")
    beside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(manifest, indent=1))
    else:
        print(f"{output}: {len(network.state_dict())} tensors, {len(labels)} classes")
    return 0


def _labels(model: str, path: Path | None) -> tuple[str, ...]:
    """Those of the file, or those of the weights that were published for the model."""
    if path is not None:
        return read_labels(path)
    sets = {one.labels for one in all_published().values() if one.model == model and one.labels}
    if len(sets) != 1:
        raise BadConfig(
            f"the classes of this {model} are unknown: give --labels FILE, one name a line,"
            " background first"
        )
    return sets.pop()
