"""A made-up run with evidence: a small VOC folder, and planted detections of a float and an int8
export, for the tests of what a report shows of single images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import detections, fidelity
from harness.datasets.voc import Voc
from harness.datasets.writers import write_voc
from harness.interfaces import Dataset, Detections, Truth
from harness.records import RunRecord
from harness.report import RunData
from tests.report_runs import MB2, made_up_run

LABELS = ("background", "cat", "dog & <b>bird</b>")
IMAGES = 6
replace = msgspec.structs.replace


class Fields(Dataset):
    """Noise with coloured fields; image i has i + 1 objects in a row."""

    name, split, labels = "fields", "val", LABELS

    def __len__(self) -> int:
        return IMAGES

    def image_id(self, index: int) -> str:
        return f"field-{index}-ü"

    def image(self, index: int) -> NDArray[np.uint8]:
        pixels = np.random.default_rng(index).integers(0, 255, (200, 400, 3), np.uint8)
        for box, label in zip(*self.truth(index)[:2], strict=True):
            left, top, right, bottom = box.astype(int)
            pixels[top:bottom, left:right] = (90 * label, 40 * index, 160)
        return pixels

    def truth(self, index: int) -> Truth:
        boxes = [[60 * n, 20, 60 * n + 40, 20 + 20 * (n + 1)] for n in range(index + 1)]
        labels = np.array([1 + n % 2 for n in range(index + 1)], np.int64)
        none = np.zeros(len(boxes), np.bool_)
        return Truth(np.array(boxes, np.float32), labels, none, none)

    def digest(self, index: int) -> str:
        return f"{index}"


def _answers(truth: Truth, *, child: bool) -> Detections:
    """The parent finds everything; the child loses the last object and sees one that is not."""
    boxes, labels = truth.boxes, truth.labels
    scores = np.linspace(0.95, 0.6, len(labels)).astype(np.float32)
    if child and len(labels) > 1:
        ghost = np.array([[300, 120, 380, 190]], np.float32)
        boxes = np.concatenate([ghost, boxes[:-1]])
        labels = np.concatenate([[1], labels[:-1]]).astype(np.int64)
        scores = np.concatenate([[0.99], scores[:-1]]).astype(np.float32)
    return Detections(boxes, labels, scores)


def run_with_evidence(folder: Path, *, labelled: bool = True) -> RunData:
    """`torch_float` is the parent of all, ``onnx_int8`` the recommended child."""
    data = Voc(write_voc(Fields(), folder / "photos"), labels=LABELS[1:])
    names = [data.image_id(index) for index in range(IMAGES)]
    truths = [data.truth(index) for index in range(IMAGES)]
    run = made_up_run(models=[MB2])
    records = []
    for record in run.records:
        cell = replace(record.cell, dataset=f"voc:{folder / 'photos'}:val")
        records.append(replace(record, cell=cell))
        if cell.measure != "accuracy" or record.state != "ok":
            continue
        child = cell.exporter.endswith("int8")
        found = detections.Found(
            names,
            [_answers(truth, child=child) for truth in truths],
            [(200, 400)] * IMAGES,
            [data.digest(index) for index in range(IMAGES)],
            truths if labelled else None,
        )
        detections.save(folder / "run" / "detections" / f"{record.cell_id}.npz", found)
        if cell.exporter != "torch_float":
            parent = [_answers(truth, child=False) for truth in truths]
            told = fidelity.fidelity(names, parent, found.detections, [(200, 400)] * IMAGES, LABELS)
            records[-1] = replace(records[-1], measurements=(*records[-1].measurements, *told))
    artifacts = {name: replace(artifact, labels=LABELS) for name, artifact in run.artifacts.items()}
    return dataclasses.replace(
        run,
        records=records if labelled else [_unlabelled(record) for record in records],
        artifacts=artifacts,
        folder=folder / "run",
        run={**run.run, "plan": []},
    )


def _unlabelled(record: RunRecord) -> RunRecord:
    kept = (item for item in record.measurements if not item.metric.startswith("accuracy."))
    return replace(record, measurements=tuple(kept))
