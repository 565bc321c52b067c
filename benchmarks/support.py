"""Every model through every exporter and runner: what is made, what runs, what equals the network.

    python benchmarks/support.py                                  # all, hours on two cores
    python benchmarks/support.py --models sq_ssd_lite --exporters onnx_float,tvm_dense
    python benchmarks/support.py --table                          # only write the table again

Each model gets deterministic random weights, is exported from scratch and held to the float network
on 8 drawn scenes: the tasks of ``detbench run --measures parity``, by the same code, but all of one
exporter in one process, which imports its frameworks once. What was found goes to
``benchmarks/support.json``, beside what earlier calls found, and from there to ``docs/support.md``
and, in short, to the README.

With random weights int8 says little about accuracy: a network that was never trained has ranges
that no quantizer is made for. So an int8 export that runs and misses the parity threshold counts as
made and run, with its figure.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.config import Calibration, Matrix
from harness.extras import require
from harness.interfaces import EXPORTERS, MODELS
from harness.plan import PlannedCell, make_plan
from harness.registry import ROOT
from harness.requests import parse
from harness.tasks import ChildResult, MeasureTask
from harness.worker import perform

FOUND = ROOT / "benchmarks" / "support.json"
TABLE = ROOT / "docs" / "support.md"
README = ROOT / "README.md"
MARK = re.compile(r"(<!-- made by benchmarks/support.py -->\n).*?(<!-- end -->\n)", re.DOTALL)
CLASSES = 21
LINE = "support: "
"""How a child's lines begin; frameworks print others."""
OF_TWO = ("rfb_320_face", "slim_320_face")
"""Models that are used with background and one class."""
VARIANTS = {
    "etinynet_ssd_lite": tuple(f"etinynet_ssd_lite:width={w}" for w in (1.0, 0.75, 0.5, 0.35)),
    "mb2_ssd_lite": ("mb2_ssd_lite", "mb2_ssd_lite:activation=relu"),
}
"""Models with options that change the network; the others are tried as they are."""


def everything() -> list[str]:
    """All models of this repository, with their variants."""
    names = sorted(path.stem for path in (ROOT / "models").glob("[!_]*.py"))
    return [text for name in names for text in VARIANTS.get(name, (name,))]


def deterministic(key: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Random weights that depend on nothing but their name and shape (He et al. 2015).

    The golden outputs of the published networks were made with these too.
    """
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith(("running_mean", "bias")):
        return rng.normal(0, 0.1, shape)
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def prepare(text: str, folder: Path) -> dict[str, Any]:
    """Write weights and labels of a model to ``folder``; answers its size."""
    torch = require("torch", extra="torch")
    flop_counter = require("torch.utils.flop_counter", extra="torch")
    request = parse(text)
    count = 2 if request.name in OF_TWO else CLASSES
    labels = ("background", *(f"class {number}" for number in range(1, count)))
    spec = MODELS.get(request.name)(labels, **request.options)
    network = spec.build()
    values = {
        key: torch.from_numpy(deterministic(key, tuple(value.shape))).to(value.dtype)
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(values)
    folder.mkdir(parents=True)
    torch.save(values, folder / "weights.pth")
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    with flop_counter.FlopCounterMode(display=False) as counted, torch.no_grad():
        network(torch.zeros(1, 3, spec.image.height, spec.image.width))
    return {
        "input": f"{spec.image.width} x {spec.image.height}",
        "classes": count,
        "priors": len(spec.priors),
        "parameters": sum(one.numel() for one in network.parameters()),
        "macs": counted.get_total_flops() // 2,
    }


def planned(text: str, exporter: str, folder: Path) -> list[PlannedCell]:
    """The parity cells of one model and exporter, one for each runner that fits."""
    matrix = Matrix(
        models=(text,),
        weights=str(folder / "weights.pth"),
        labels=str(folder / "labels.txt"),
        exporters=(exporter,),
        measures=("parity",),
        calibration=Calibration(images=16),
    )
    return list(make_plan(matrix).cells)


def child(exporter: str, tried: Sequence[str], base: Path) -> None:
    """In a process of its own: export and compare each model, one line of JSON for each."""
    for text in tried:
        rows = []
        for cell_ in planned(text, exporter, base / _file(text)):
            assert cell_.export is not None
            done = ChildResult(state="unsupported", error=cell_.unsupported)
            if cell_.unsupported is None:
                done = perform(cell_.export)
            if done.state == "ok":
                done = perform(
                    MeasureTask(
                        cell=cell_.cell,
                        folder=str(cell_.folder),
                        images=0,
                        tier="smoke",
                        round=0,
                        rounds=1,
                        seed=0,
                    )
                )
            rows.append(row(exporter, cell_.cell.runner, done))
            shutil.rmtree(cell_.folder, ignore_errors=True)
        print(LINE + json.dumps([text, rows]), flush=True)


def supervise(exporter: str, models: Sequence[str], base: Path) -> Iterator[tuple[str, list[Any]]]:
    """Rows of each model as its child says them; a child that dies is followed by another."""
    left = list(models)
    while left:
        command = [sys.executable, __file__, "--child", exporter, str(base), *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(LINE):
                    text, rows = json.loads(line.removeprefix(LINE))
                    left.remove(text)
                    yield text, rows
        if left:
            reason = f"the process ended with {process.returncode}"
            died = ChildResult(state="crashed", error=reason)
            runners = {
                cell_.cell.runner for cell_ in planned(left[0], exporter, base / _file(left[0]))
            }
            yield left[0], [row(exporter, runner, died) for runner in runners]
            left.pop(0)


def _file(text: str) -> str:
    return text.replace(":", "-").replace("=", "-")


def row(exporter: str, runner: str, done: ChildResult) -> dict[str, Any]:
    """What is kept of a cell."""
    values = {one.metric: one.value for one in done.measurements}

    def value(name: str) -> float | None:
        found = values.get(f"parity.{name}.sqnr_db")
        return None if found is None else round(found, 1)

    return {
        "exporter": exporter,
        "runner": runner,
        "state": done.state,
        "logits_sqnr_db": value("logits"),
        "offsets_sqnr_db": value("offsets"),
        "reason": done.error and re.sub(r"\S*/\S*/\S+", "…", done.error),
    }


def merge(found: dict[str, Any], text: str, facts: dict[str, Any], rows: Iterable[Any]) -> None:
    """Put a model's rows in place of what was known of the same exporters and runners."""
    model = found.setdefault("models", {}).setdefault(text, {"cells": []})
    model |= facts
    new = {(one["exporter"], one["runner"]): one for one in rows}
    old = {(one["exporter"], one["runner"]): one for one in model["cells"]}
    model["cells"] = [one for _, one in sorted({**old, **new}.items())]


def square(one: dict[str, Any] | None) -> str:
    """One square of the table."""
    if one is None:
        return "–"
    if one["state"] == "ok":
        return f"yes {one['logits_sqnr_db']:.0f}/{one['offsets_sqnr_db']:.0f}"
    return "runs" if one["state"] == "parity-failed" else str(one["state"])


def pairs_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Every exporter with its runner that was tried, float before int8."""
    return sorted(
        {(c["exporter"], c["runner"]) for m in found["models"].values() for c in m["cells"]},
        key=lambda pair: (EXPORTERS.get(pair[0]).precision, pair),
    )


def summary(found: dict[str, Any]) -> str:
    """The README's table: a word for each model and exporter."""
    pairs = pairs_of(found)
    lines = [
        f"| model | {' | '.join(f'`{exporter}`' for exporter, _ in pairs)} |",
        "|" + "---|" * (len(pairs) + 1),
    ]
    for name, model in sorted(found["models"].items()):
        cells = {(c["exporter"], c["runner"]): c for c in model["cells"]}
        words = (square(cells.get(pair)).split()[0] for pair in pairs)
        lines.append(f"| `{name}` | {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


def in_readme(text: str, found: dict[str, Any]) -> str:
    """The README with its table made again."""
    return MARK.sub(lambda marks: f"{marks[1]}{summary(found)}{marks[2]}", text)


def table(found: dict[str, Any]) -> str:
    """The page, from the file alone."""
    pairs = pairs_of(found)
    head = ["model", "input", "parameters", "MACs", *(f"`{e}` → `{r}`" for e, r in pairs)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    reasons = []
    for name, model in sorted(found["models"].items()):
        cells = {(c["exporter"], c["runner"]): c for c in model["cells"]}
        size = (
            model["input"],
            f"{model['parameters'] / 1e6:.2f} M",
            f"{model['macs'] / 1e6:.0f} M",
        )
        lines.append(
            f"| {' | '.join([f'`{name}`', *size, *(square(cells.get(p)) for p in pairs)])} |"
        )
        for (exporter, runner), one in cells.items():
            if one["reason"]:
                reasons.append(f"- `{name}`, `{exporter}` → `{runner}`: {one['reason']}")
    return PAGE.format(
        table="\n".join(lines),
        reasons="\n".join(reasons) or "Nothing failed.",
        missing=", ".join(f"`{text}`" for text in untried(found, pairs)) or "none",
    )


def untried(found: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Models and exporters of this repository without a row or a column."""
    models = [text for text in everything() if text not in found["models"]]
    tried = {exporter for exporter, _ in pairs}
    own = sorted(path.stem for path in (ROOT / "exporters").glob("[!_]*.py"))
    return models + [name for name in own if name not in tried]


PAGE = """# Which model goes through which exporter

Made by `python benchmarks/support.py` from `benchmarks/support.json`; do not edit it. Each model
had deterministic random weights and 21 classes (the face detectors 2) and was held to the float
network on 8 drawn scenes. The figures are the ratio of signal to error in dB, logits/offsets.

- **yes**: exported, run, and passed parity (float: 60 dB and 1e-3; int8: 15 and 10 dB).
- **runs**: exported and run, but missed the threshold: int8, whose ranges a network that was never
  trained does not fit.
- **–**: not tried yet. Anything else is the state of the cell; its reason is below.

{table}

## Reasons

{reasons}

XNNPACK, with which LiteRT runs int8, refuses a layer whose input and output scales differ 256 times
or more. The random weights of `mb3_large_ssd_lite` make such layers (597 times).

## Models and exporters not tried yet

{missing}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--models", help="separated by spaces; default: all, with their variants")
    options.add_argument("--exporters", help="separated by commas; default: all")
    options.add_argument("--table", action="store_true", help="only write the table again")
    given = options.parse_args()
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}
    models = given.models.split() if given.models else everything()
    exporters = given.exporters.split(",") if given.exporters else EXPORTERS.names()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        facts = {} if given.table else {text: prepare(text, base / _file(text)) for text in models}
        for exporter in exporters if facts else ():
            for text, rows in supervise(exporter, models, base):
                merge(found, text, facts[text], rows)
                FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(text, {f"{one['exporter']} {one['runner']}": square(one) for one in rows})
    TABLE.write_text(table(found), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(in_readme(text, found), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[4:], Path(sys.argv[3]))
    else:
        main()
