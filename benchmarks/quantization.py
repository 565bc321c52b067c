"""What quantization costs in accuracy: simulated and real, and by the choice of ranges.

    python benchmarks/quantization.py simulated [--model mb2_ssd_lite] [--images 300]
    python benchmarks/quantization.py ranges    [--data voc:/data/helmet:val --weights best.pth]

- ``simulated``: ``quantsim`` beside the int8 exports that it predicts.
- ``ranges``: each int8 exporter with each of its ways to choose ranges.

Each row: VOC12 mAP, its drop against the float network on the same images with the 95 % interval of
a paired bootstrap, and the SQNR of logits and offsets on images that did not calibrate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.config import Calibration, Matrix
from harness.errors import DetbenchError
from harness.ranges import METHODS
from harness.trials import HEAD, Trial, Trials, row

FLOAT = "torch_float"
REAL = ("onnx_int8", "tflite_int8", "torch_int8:package=export")
SIMULATED = ("quantsim", "quantsim:aimet", "equalize+quantsim:aimet")
ROWS = {
    "simulated": [
        *((recipe, "torch_float") for recipe in SIMULATED),
        *(("none", exporter) for exporter in REAL),
    ],
    "ranges": [
        ("none", f"{exporter}{',' if ':' in exporter else ':'}calibration={method}")
        for exporter in REAL
        for method in METHODS
    ],
}


def line(trial: Trial) -> str:
    """One row of the table."""
    named = trial.exporter if trial.recipe == "none" else f"{trial.recipe} {trial.exporter}"
    return row(named, trial)


def after(first: str, recipe: str) -> str:
    """``recipe`` behind ``first``."""
    return "+".join(one for one in (first, recipe) if one != "none") or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", choices=ROWS)
    parser.add_argument("--model", default="mb2_ssd_lite")
    parser.add_argument("--weights", default="shipped")
    parser.add_argument("--data", default="shapes:val")
    parser.add_argument("--calibration", metavar="DATA")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--recipe", default="none", help="done to the network first")
    parser.add_argument("--only", default="", help="rows that contain this")
    given = parser.parse_args()
    matrix = Matrix(
        models=(given.model,),
        weights=given.weights,
        data=given.data,
        images=given.images,
        calibration=Calibration(data=given.calibration),
    )
    print(HEAD)
    with Trials(matrix) as trials:
        print(line(trials.run(given.recipe, FLOAT)), flush=True)
        for recipe, exporter in ROWS[given.rows]:
            if given.only not in f"{recipe} {exporter}":
                continue
            try:
                print(line(trials.run(after(given.recipe, recipe), exporter)), flush=True)
            except DetbenchError as error:
                print(f"{recipe} {exporter}: {error}", flush=True)


if __name__ == "__main__":
    main()
