"""What each compression costs and saves: one table, from ordinary records of ordinary cells.

    python benchmarks/lab.py mb2_ssd_lite --images 200
    python benchmarks/lab.py mb2_ssd_lite --weights w.safetensors --labels labels.txt \\
        --data voc:/data/VOCdevkit:val --latency

It runs the float network, the same trained on (what training alone is worth), pruned, pruned and
trained, clustered, and simulated integer ones through PyTorch; the float network through every
exporter, and the sparsest trained ones through the one that skips zeros; all on the same images. It
prints a Markdown table. ``--latency`` times the exports for a device too, by turns; scores that are
there are not made again. The same command goes on where it was stopped, and prints what there is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import cli, config, machine, results
from harness.commands.run import carry_out
from harness.errors import DetbenchError
from harness.plan import Plan, PlannedCell, join, make_plan
from harness.records import Measurement, RunRecord
from harness.report.figures import percent

SPARSITIES = ("0.5", "0.8", "0.9")
BITS = (8, 5, 4)
SIMULATED = ("quantsim", "quantsim:aimet")
REAL = ("onnx_float", "tflite_float", "tvm_dense", "onnx_int8", "tflite_int8", "torch_int8")
SPARSE = ("0.8", "0.9")
"""Sparsities at which skipping zeros is worth a row."""
METRIC = "accuracy.voc12_map"
HEAD = (
    "| network | export | VOC12 mAP, % | 95 % interval | against float | file, MB | weights, MB |"
)


class Trained(NamedTuple):
    """The recipes that take long: after nothing, after a pruning, and for rounding.

    ``none`` in place of a training leaves its rows out.
    """

    finetune: str
    recover: str
    adaround: str


def chains(how: Trained) -> list[str]:
    """The recipes of the table, in its order."""
    pruned = [f"prune:{sparsity}" for sparsity in SPARSITIES]
    trained = [] if how.recover == "none" else [f"{chain}+{how.recover}" for chain in pruned]
    alone = [] if how.finetune == "none" else [how.finetune]
    clustered = [f"kmeans:{bits}" for bits in BITS]
    rounded = [f"equalize+{how.adaround}+quantsim:aimet"]
    return ["none", *alone, *pruned, *trained, *clustered, *SIMULATED, *rounded]


def plan(asked: dict[str, Any], how: Trained, latency: bool) -> Plan:
    """All cells of the table."""
    simulated = {"exporters": ["torch_float"], "runners": ["torch_cpu"]}
    after = "" if how.recover == "none" else f"+{how.recover}"
    sparse = [f"prune:{sparsity}{after}" for sparsity in SPARSE]
    matrices = [
        {**simulated, "recipes": chains(how)},
        {"recipes": ["none"], "exporters": list(REAL)},
        {"recipes": sparse, "exporters": ["tvm_sparse"]},
    ]
    if latency:
        timed = {"measures": ["accuracy", "latency"]}
        matrices = [
            matrices[0],
            {**simulated, "recipes": ["none"], **timed},
            *({**matrix, **timed} for matrix in matrices[1:]),
        ]
    return join([make_plan(config.load(None, {**asked, **matrix})) for matrix in matrices])


def row(planned: PlannedCell, folder: results.RunFolder, timed: dict[Path, RunRecord]) -> str:
    """A line of the table for an accuracy cell."""
    cell, record = planned.cell, folder.read_record(planned.id)
    name = "float" if cell.recipe == "none" else f"`{cell.recipe}`"
    first = f"| {name} | {cell.exporter}, {cell.runner} |"
    if record is None or record.state != "ok":
        return f"{first} {'not measured' if record is None else record.state} | | | | |"
    score, change = record.measurement(METRIC), record.measurement(f"{METRIC}_change")
    artifact = folder.read_artifact(record.artifact_sha256)
    files = artifact.files if artifact else ()
    packed = sum(entry.size_bytes for entry in files if entry.role == "weights")
    verdict = change.conditions["verdict"] if change is not None else "–"
    cells = [percent(score.value) if score and score.value is not None else "", _interval(score)]
    cells += [str(verdict), f"{(record.artifact_size_bytes or 0) / 1e6:.2f}"]
    cells.append(f"{packed / 1e6:.2f}" if packed else "")
    if timed:
        cells.append(_latency(timed.get(planned.folder)))
    return f"{first} {' | '.join(cells)} |"


def _interval(score: Measurement | None) -> str:
    limits = score.conditions.get("ci95") if score is not None else None
    return " to ".join(percent(limit) for limit in limits) if limits else ""


def _latency(record: RunRecord | None) -> str:
    """Milliseconds at one thread; what became of a cell that did not end well, beside them."""
    if record is None:
        return ""
    found = record.measurement("latency.inference")
    time = f"{found.value / 1e6:.1f}" if found is not None and found.value is not None else ""
    return time if record.state == "ok" else f"{time} ({record.state})".strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="mb2_ssd_lite")
    parser.add_argument("--weights", default="shipped")
    parser.add_argument("--labels")
    parser.add_argument("--data", default="shapes:val")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--finetune", default="finetune:2000", help="of the float network; or none")
    parser.add_argument(
        "--recover",
        default="finetune:2000,learning_rate=0.003",
        help="what follows a pruning: a training at a higher rate; or none",
    )
    parser.add_argument("--adaround", default="adaround:aimet")
    parser.add_argument("--latency", action="store_true", help="time the real exports as well")
    parser.add_argument("--name", default="lab", help="of the run's folder")
    parser.add_argument("--results", type=Path, default=results.DEFAULT)
    parser.add_argument("--training-images", type=int, help="train on the first so many only")
    parser.add_argument("--jobs", type=int, help="exports at once; default: the cores")
    parser.add_argument("--timeout-s", type=int, default=1800)
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    given = parser.parse_args()
    asked: dict[str, Any] = {
        "models": [given.model],
        "weights": given.weights,
        "data": given.data,
        "images": given.images,
        "name": given.name,
        "timeout_s": given.timeout_s,
        "threads": [1],
        "measures": ["accuracy"],
        "jobs": given.jobs,
        "labels": given.labels,
        "training.images": given.training_images,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    how = Trained(given.finetune, given.recover, given.adaround)
    planned = plan(asked, how, given.latency)
    code = 0
    if not given.table_only:
        words = ["run", "--results", str(given.results), "--no-report", "--allow-tainted"]
        code = carry_out(planned, config.load(None, asked), cli.build_parser().parse_args(words))
    folder = results.RunFolder(
        given.results, machine.machine_id(machine.machine_record()), given.name
    )
    timed = {}
    for cell in planned.cells:
        record = folder.read_record(cell.id)
        if cell.cell.measure == "latency" and record is not None:
            timed[cell.folder] = record
    print(HEAD + (" latency, ms |" if timed else ""))
    print("|---" * (HEAD.count("|") - 1 + bool(timed)) + "|")
    for cell in planned.cells:
        if cell.cell.measure == "accuracy":
            print(row(cell, folder, timed))
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DetbenchError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
