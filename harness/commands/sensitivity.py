"""``detbench sensitivity``: which layers can be pruned, and how far; resumable."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from harness import weights
from harness.building import load_network
from harness.cache import sha256_text, write_atomic
from harness.datasets import open_dataset
from harness.errors import BadConfig
from harness.evaluation import class_map
from harness.extras import require
from harness.interfaces import MODELS, Dataset, Truth
from harness.model_file import take
from harness.plan import static_options
from harness.provenance import EXPORT_SOURCES, git_revision, source_digest
from harness.records import ModelSpec, decode, encode
from harness.registry import load_file
from harness.requests import complete, parse
from harness.sensitivity import Point, Scan, choose, table

RECORD, TABLE, LAYERS, PAGE = (
    "sensitivity.json",
    "sensitivity.csv",
    "layers.json",
    "sensitivity.html",
)


def sensitivity(options: argparse.Namespace) -> int:
    """Scan, going on where a stopped one was, and choose sparsities where a drop is given."""
    require("torch", extra="torch")
    from models.recipes._masks import pattern

    for plugin in options.plugin:
        load_file(Path(plugin))
    sparsities = _sparsities(options.sparsities)
    if pattern(options.pattern).of:
        raise BadConfig(
            f"pattern {options.pattern} has one sparsity only: there is nothing to scan"
        )
    if options.target_drop is not None and not 0 < options.target_drop < 100:
        raise BadConfig(
            f"--target-drop is {options.target_drop}: give AP points, more than 0 and below 100"
        )
    (model,) = take([options.model], [])
    request = parse(model)
    request = msgspec.structs.replace(
        request,
        options=complete(request.options, static_options(request.name), f"model {request.name}"),
    )
    labels = Path(options.labels) if options.labels else None
    found = weights.find(request.name, request.options, options.weights or "shipped", labels)
    data = open_dataset(options.data, limit=options.images)
    if not data.labelled:
        raise BadConfig(f"{options.data} has no ground truth: a scan scores mAP")
    spec = MODELS.get(request.name)(found.labels, **request.options)
    digest = sha256_text(
        [
            str(request),
            found.sha256,
            str((options.pattern, sparsities)),
            source_digest(EXPORT_SOURCES),
            *(data.digest(index) for index in range(len(data))),
        ]
    )
    scan = Scan(
        model=request.name,
        model_options=request.options,
        weights=found.source,
        data=f"{data.name}:{data.split}",
        images=len(data),
        pattern=options.pattern,
        sparsities=sparsities,
        digest=digest,
        git_revision=git_revision()[0],
    )
    out: Path = options.output
    network = load_network(spec, found.path)
    scan = _carry_out(_resumed(out, scan), out, spec, network, data, options)
    _say(scan, out, options)
    return 0


def _sparsities(text: str) -> tuple[float, ...]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise BadConfig(f"--sparsities '{text}' are no numbers: write 0.3,0.5,0.7") from None
    if not all(0 < sparsity <= 1 for sparsity in found):
        raise BadConfig(f"--sparsities '{text}': give numbers above 0 and up to 1")
    return tuple(found)


def _resumed(out: Path, scan: Scan) -> Scan:
    """What ``out`` has of the same scan. Raises BadConfig where it has another."""
    path = out / RECORD
    if not path.is_file():
        return scan
    before = decode(path.read_bytes(), Scan, path)
    if before.digest != scan.digest:
        raise BadConfig(
            f"{path} is a scan of another model, data, code, pattern or sparsities: give a new"
            " folder with -o"
        )
    return before


def _carry_out(
    scan: Scan, out: Path, spec: ModelSpec, network: Any, data: Dataset, options: argparse.Namespace
) -> Scan:
    from models.recipes._sensitivity import Scanner

    scanner = Scanner(network, spec, data, _truths(data, spec), scan.pattern)
    scan = msgspec.structs.replace(scan, map=scanner.map, layers=tuple(scanner.layers))
    done = {(point.layer, point.sparsity) for point in scan.points}
    tasks = scanner.tasks(scan.sparsities)
    left = [task for task in tasks if (task.layer, task.sparsity) not in done]
    bar = tqdm(
        total=sum(task.seconds for task in tasks),
        initial=sum(task.seconds for task in tasks) - sum(task.seconds for task in left),
        disable=options.quiet,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
    )
    began, before = time.monotonic(), scan.seconds
    with bar:
        for task, point in zip(left, scanner.scan(left), strict=True):
            seconds = before + time.monotonic() - began
            scan = msgspec.structs.replace(scan, points=(*scan.points, point), seconds=seconds)
            write_atomic(out / RECORD, encode(scan))
            bar.set_description_str(f"{task.layer} {task.sparsity:g}", refresh=False)
            bar.update(task.seconds)
    if options.target_drop is not None:

        def score(layers: Any) -> Point:
            return scanner.score({name: s for name, s in layers.items() if s})

        chosen = choose(scan, options.target_drop / 100, score)
        scan = msgspec.structs.replace(scan, choice=chosen)
    return scan


def _truths(data: Dataset, spec: ModelSpec) -> list[Truth]:
    to_model = class_map(data.labels, spec.labels, f"{data.name}:{data.split}")
    truths = [data.truth(index) for index in range(len(data))]
    return [truth._replace(labels=to_model[truth.labels]) for truth in truths]


def _say(scan: Scan, out: Path, options: argparse.Namespace) -> None:
    """Write what follows from the record, and say where it is."""
    from harness.report.sensitivity import page

    write_atomic(out / RECORD, encode(scan))
    write_atomic(out / TABLE, table(scan).encode())
    write_atomic(out / PAGE, page(scan).encode())
    choice = scan.choice
    if choice is not None:
        layers = {name: sparsity for name, sparsity in choice.layers.items() if sparsity}
        write_atomic(out / LAYERS, json.dumps({"layers": layers}, indent=1).encode() + b"\n")
    if options.json:
        sys.stdout.write(encode(scan).decode())
        return
    print(f"{out / PAGE}: {len(scan.layers)} layers, {len(scan.points)} networks scored")
    worst = sorted(scan.points, key=lambda point: point.change)[:3]
    for point in worst:
        print(f"{point.layer} at {point.sparsity:g}: {100 * point.change:+.1f} AP")
    if choice is not None:
        print(
            f"for a drop of {100 * choice.target_drop:g} AP {choice.sparsity:.1%} of the weights"
            f" can go, measured {100 * choice.change:+.1f} AP: "
            f" --recipe prune:layers={out / LAYERS}"
        )
