"""What a trained network is worth: mAP through the harness's own preprocessing and decoding."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from harness.accuracy.voc import voc_map
from harness.decode import decode
from harness.images import Preprocessor, float_input
from harness.interfaces import Dataset, Detections, RawOutputs
from harness.records import ModelSpec, Record

BATCH = 16


class Score(Record, frozen=True, kw_only=True):
    """Mean average precision of the float network, with the conditions it holds under.

    ``value`` is None where the data has no object.
    """

    metric: str = "voc12_map@0.5"
    value: float | None
    per_class: dict[str, float | None]
    data: str
    images: int
    score_threshold: float
    iou_threshold: float
    max_detections: int | None


def score(network: nn.Module, spec: ModelSpec, data: Dataset, *, device: str = "cpu") -> Score:
    """Run ``network`` over all of ``data`` and score what it finds."""
    prepare = Preprocessor(spec.image, float_input(spec.image))
    network = network.to(device).eval()
    found: list[Detections] = []
    with torch.inference_mode():
        for first in tqdm(range(0, len(data), BATCH), desc="scoring", unit="batch", mininterval=1):
            images = [data.image(i) for i in range(first, min(first + BATCH, len(data)))]
            batch = torch.from_numpy(np.concatenate([prepare(image) for image in images]))
            logits, offsets = network(batch.to(device))
            found += decode(
                RawOutputs(logits.cpu().numpy(), offsets.cpu().numpy()),
                priors=spec.priors,
                decoding=spec.decoding,
                sizes=[image.shape[:2] for image in images],
            )
    truths = [data.truth(index) for index in range(len(data))]
    result = voc_map(truths, found, spec.labels, iou_threshold=0.5, definition="voc12")
    return Score(
        value=result.mean,
        per_class=result.per_class,
        data=f"{data.name}:{data.split}",
        images=len(data),
        score_threshold=spec.decoding.score_threshold,
        iou_threshold=spec.decoding.iou_threshold,
        max_detections=spec.decoding.max_detections,
    )
