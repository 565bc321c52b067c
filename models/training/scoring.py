"""What a network is worth on held-out data: loss, and mAP by the harness's own code.

Preparing, decoding and counting are the harness's, so the figure is the one that an export of the
network has to hold.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from harness.accuracy.voc import voc_map
from harness.datasets import open_dataset
from harness.datasets.alike import common
from harness.datasets.without import LEFT_OUT
from harness.decode import decode
from harness.errors import BadConfig
from harness.evaluation import class_map
from harness.images import Preprocessor, float_input
from harness.interfaces import Dataset, Detections, RawOutputs, Truth
from harness.records import ModelSpec, Record
from models.training.loss import Answers, Targets, multibox
from models.training.matching import match
from models.training.options import TrainOptions

BATCH = 16


class Score(Record, frozen=True, kw_only=True):
    """Mean average precision of the float network, with the conditions it holds under.

    ``value`` is None where the data has no object. ``loss`` is the training's own, on whole images
    as they are; None where it was not asked for.
    """

    metric: str = "voc12_map@0.5"
    value: float | None
    per_class: dict[str, float | None]
    data: str
    images: int
    score_threshold: float
    iou_threshold: float
    max_detections: int | None
    loss: float | None = None


class HeldOut:
    """The images that a training is scored on."""

    def __init__(self, data: Dataset, spec: ModelSpec) -> None:
        """Read the ground truth.

        Raises:
            BadConfig: it has classes that the model does not know, or no object.
        """
        self.data, self.spec = data, spec
        where = f"{data.name}:{data.split}"
        to_model = class_map(data.labels, spec.labels, where)
        truths = [data.truth(index) for index in range(len(data))]
        self.truths = [each._replace(labels=to_model[each.labels]) for each in truths]
        if not any(len(each.labels) for each in truths):
            raise BadConfig(
                f"the held-out data {where} has no object in {len(data)} images: give data that"
                " has, or evaluate=0"
            )

    def score(self, network: nn.Module, options: TrainOptions) -> Score:
        """Run ``network`` over all images; it is left in evaluation mode."""
        spec, data = self.spec, self.data
        prepare = Preprocessor(spec.image, float_input(spec.image))
        network = network.to(options.device).eval()
        found: list[Detections] = []
        losses: list[float] = []
        starts = range(0, len(data), BATCH)
        with torch.inference_mode():
            for first in tqdm(starts, desc="scoring", unit="batch", mininterval=1, leave=False):
                indices = range(first, min(first + BATCH, len(data)))
                images = [data.image(index) for index in indices]
                batch = torch.from_numpy(np.concatenate([prepare(image) for image in images]))
                logits, offsets = (part.float().cpu() for part in network(batch.to(options.device)))
                sizes = [image.shape[:2] for image in images]
                told = [
                    self._targets(self.truths[i], size, options)
                    for i, size in zip(indices, sizes, strict=True)
                ]
                losses.append(self._loss(Answers(logits, offsets), told, options) * len(images))
                found += decode(
                    RawOutputs(logits.numpy(), offsets.numpy()),
                    priors=spec.priors,
                    decoding=spec.decoding,
                    sizes=sizes,
                )
        result = voc_map(self.truths, found, spec.labels, iou_threshold=0.5, definition="voc12")
        return Score(
            value=result.mean,
            per_class=result.per_class,
            data=f"{data.name}:{data.split}",
            images=len(data),
            score_threshold=spec.decoding.score_threshold,
            iou_threshold=spec.decoding.iou_threshold,
            max_detections=spec.decoding.max_detections,
            loss=sum(losses) / len(data),
        )

    def _targets(
        self, truth: Truth, size: tuple[int, int], options: TrainOptions
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        keep = ~truth.crowd
        scale = np.array([size[1], size[0]] * 2, np.float32)
        return match(
            truth.boxes[keep] / scale,
            truth.labels[keep],
            self.spec.priors,
            self.spec.decoding,
            options.match_iou,
        )

    def _loss(
        self,
        said: Answers,
        told: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
        options: TrainOptions,
    ) -> float:
        labels, offsets = (np.stack(part) for part in zip(*told, strict=True))
        targets = Targets(torch.from_numpy(labels), torch.from_numpy(offsets))
        sigmoid = self.spec.decoding.score == "sigmoid"
        return float(multibox(said, targets, negatives=options.negatives, sigmoid=sigmoid).total)


def open_held_out(options: TrainOptions, spec: ModelSpec) -> HeldOut | None:
    """The data that ``options`` score on; None where they ask for none.

    Raises:
        BadConfig: none is named, it shares images with the training data, or does not fit.
    """
    if options.evaluate == 0:
        return None
    text = options.evaluate_data
    if text is None and options.data.partition(":")[0] == "shapes":
        text = "shapes:val"
    if text is None:
        raise BadConfig(
            f"nothing is held out to score a training on {options.data}: name a data set with"
            " --val, or set evaluate=0"
        )
    data = open_dataset(text, limit=options.evaluate)
    if not data.labelled:
        raise BadConfig(f"{text} has no ground truth: name held-out data that has, or evaluate=0")
    _check_apart(data, open_dataset(options.data, limit=options.data_images), text)
    return HeldOut(data, spec)


def _check_apart(held_out: Dataset, shown: Dataset, text: str) -> None:
    """Refuse held-out images that are also learned, whatever their names. Raises BadConfig."""
    both = common(shown, range(len(shown)), held_out)
    if both:
        raise BadConfig(
            f"{len(both)} images of {text} are also trained on, the first is {both[0]}: hold"
            f" other images out, or leave them out of --data by its name, such as {LEFT_OUT}"
        )
