"""Detections of every export on photos, against those of the float network in PyTorch.

    python benchmarks/photos.py rfb_320_face --weights version-RFB-320.pth --labels face.txt \\
        --photos voc:/data/VOCdevkit:val --calibration voc:/data/VOCdevkit:train --images 100

For each exporter and runner: detections that an application would show, how many of them are
matched by the float network's, lost, new, moved (IoU below 0.9) or rescored (by more than 0.1).
The photos need no ground truth of the model's classes: what is measured is what an export changes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import artifacts, building
from harness.config import Calibration, Matrix
from harness.datasets import open_dataset
from harness.decode import decode
from harness.images import Preprocessor, float_input
from harness.interfaces import RUNNERS, Detections, RawOutputs, RunOptions
from harness.opened import Opened
from harness.parity import SHOWN_SCORE, compare_detections
from harness.plan import make_plan
from harness.worker import perform

Photos = list[NDArray[np.uint8]]


def reference(request: Any, photos: Photos) -> list[Detections]:
    """What the float network detects."""
    spec = building.model_spec(request)
    network = building.load_network(spec, Path(request.weights_path))
    import torch

    prepare = Preprocessor(spec.image, float_input(spec.image))
    found = []
    with torch.inference_mode():
        for photo in photos:
            logits, offsets = network(torch.from_numpy(prepare(photo)))
            raw = RawOutputs(logits.numpy(), offsets.numpy())
            size = (photo.shape[0], photo.shape[1])
            found += decode(raw, priors=spec.priors, decoding=spec.decoding, sizes=[size])
    return found


def shown(detections: list[Detections]) -> int:
    return sum(int((one.scores >= SHOWN_SCORE).sum()) for one in detections)


def compare(matrix: Matrix, photos: Photos) -> Iterator[dict[str, Any]]:
    """A row for each exporter and runner of the matrix."""
    expected: list[Detections] | None = None
    made: dict[str, str | None] = {}
    cells = make_plan(matrix).cells
    for cell in cells:
        row = {"exporter": cell.cell.exporter, "runner": cell.cell.runner}
        if cell.unsupported is not None or cell.export is None:
            yield {**row, "error": cell.unsupported}
            continue
        expected = expected or reference(cell.export.request, photos)
        if str(cell.folder) not in made:
            made[str(cell.folder)] = perform(cell.export).error
        if error := made[str(cell.folder)]:
            yield {**row, "error": error}
            continue
        artifact = artifacts.load(cell.folder)
        runner = RUNNERS.get(cell.cell.runner)()
        with runner.open(artifact, cell.folder, RunOptions(threads=1)) as session:
            prepare = Preprocessor(artifact.image, artifact.inputs[0])
            opened = Opened(artifact, session, prepare, artifacts.priors(cell.folder))
            sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
            got = opened.detect(opened.infer(photos), sizes)
        changes = compare_detections(expected, got)
        yield {**row, "float": shown(expected), "shown": shown(got), **changes._asdict()}
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--photos", required=True, metavar="DATA", help="as in detbench --data")
    parser.add_argument("--calibration", required=True, metavar="DATA")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--exporters", help="separated by commas; default: all that are installed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    data = open_dataset(given.photos, limit=given.images)
    matrix = Matrix(
        models=(given.model,),
        weights=given.weights,
        labels=given.labels,
        exporters=tuple(given.exporters.split(",")) if given.exporters else None,
        measures=("parity",),
        calibration=Calibration(data=given.calibration, images=100),
    )
    for row in compare(matrix, [data.image(index) for index in range(len(data))]):
        said = json.dumps(row) if given.json else "  ".join(f"{k} {v}" for k, v in row.items())
        print(said, flush=True)


if __name__ == "__main__":
    main()
