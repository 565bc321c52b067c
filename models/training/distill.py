"""Learning from a teacher: its softened class scores, and its boxes where they are better.

Papers: Hinton et al. 2015 (https://arxiv.org/abs/1503.02531) for softened scores; Chen et al. 2017,
"Learning Efficient Object Detection Models with Knowledge Distillation" (NIPS), for detectors: both
losses of the heads mixed, and a box loss bounded by the teacher. Teacher and student answer for the
same priors, so the comparison is prior by prior, on those that the hard loss takes: matched ones
and mined negatives.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import weights
from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import ImageSpec, ModelSpec
from harness.requests import parse
from models._checkpoint import load_weights
from models.training.loss import Answers, Loss, Targets, multibox, taken
from models.training.options import Distill


class Teacher(NamedTuple):
    """A trained detector whose answers are learned. ``image`` is how it sees."""

    network: nn.Module
    image: ImageSpec

    @torch.no_grad()
    def answers(self, images: Tensor, seen_by: ImageSpec) -> Answers:
        """What the teacher says to images prepared for a model that sees ``seen_by``."""
        if self.image != seen_by:
            images = _prepared(images, seen_by, self.image)
        logits, offsets = self.network(images)
        return Answers(logits.float(), offsets.float())


def open_teacher(how: Distill, spec: ModelSpec, device: str) -> Teacher:
    """The teacher that ``how`` names.

    Raises:
        UnknownName, BadCheckpoint: no such model or weights.
        BadConfig: it has other classes or priors than the student.
    """
    request = parse(how.teacher)
    factory = MODELS.get(request.name)
    options = dict(factory(spec.labels, **request.options).options)
    found = weights.find(request.name, options, how.weights, None)
    if found.labels != spec.labels:
        raise BadConfig(
            f"teacher {how.teacher} knows the classes {', '.join(found.labels[1:])}, the student"
            f" learns {', '.join(spec.labels[1:])}: they must be the same, in the same order"
        )
    taught = factory(found.labels, **options)
    check_teacher(taught, spec)
    network = taught.build()
    load_weights(network, Path(found.path))
    return Teacher(network.to(device).eval(), taught.image)


def check_teacher(taught: ModelSpec, spec: ModelSpec) -> None:
    """Refuse a teacher that answers for other priors, or another input. Raises BadConfig."""
    size = (taught.image.height, taught.image.width)
    if not np.array_equal(taught.priors, spec.priors):
        raise BadConfig(
            f"teacher {taught.name} answers for {len(taught.priors)} priors of"
            f" {size[0]}x{size[1]} pixels, {spec.name} for {len(spec.priors)}: choose a teacher"
            " whose priors are the same, such as the same model at a larger width"
        )
    if taught.decoding.score != spec.decoding.score:
        raise BadConfig(
            f"teacher {taught.name} makes scores by {taught.decoding.score}, {spec.name} by"
            f" {spec.decoding.score}: choose one that makes them alike"
        )


def distilled(
    said: Answers, told: Targets, taught: Answers, how: Distill, *, negatives: float, sigmoid: bool
) -> Loss:
    """The hard loss and the teacher's, mixed as ``how`` says."""
    hard = multibox(said, told, negatives=negatives, sigmoid=sigmoid)
    matched = told.labels > 0
    count = matched.sum().clamp(min=1)
    mask = taken(said.logits, told.labels, negatives, sigmoid=sigmoid)
    soft = _soft(said.logits[mask], taught.logits[mask], how.temperature, sigmoid=sigmoid) / count
    boxes = _bounded(said.offsets[matched], taught.offsets[matched], told.offsets[matched]) / count
    return Loss(
        (1 - how.share) * hard.classes + how.share * soft,
        hard.boxes + how.boxes * boxes,
    )


def _soft(student: Tensor, teacher: Tensor, temperature: float, *, sigmoid: bool) -> Tensor:
    """Divergence of the softened scores, times the square of the temperature (Hinton et al.)."""
    student, teacher = student / temperature, teacher / temperature
    if sigmoid:
        wanted = teacher.sigmoid()
        cross = functional.binary_cross_entropy_with_logits(student, wanted, reduction="sum")
        own = functional.binary_cross_entropy_with_logits(teacher, wanted, reduction="sum")
        return (cross - own) * temperature**2
    divergence = functional.kl_div(
        functional.log_softmax(student, 1),
        functional.log_softmax(teacher, 1),
        reduction="sum",
        log_target=True,
    )
    return divergence * temperature**2


def _bounded(student: Tensor, teacher: Tensor, truth: Tensor) -> Tensor:
    """Squared error to the truth, of priors where the student is worse than the teacher."""
    own = (student - truth).square().sum(1)
    return own[own > (teacher - truth).square().sum(1)].sum()


def _prepared(images: Tensor, was: ImageSpec, wanted: ImageSpec) -> Tensor:
    """Images prepared for one model as another one sees them."""

    def column(values: tuple[float, float, float], order: str) -> Tensor:
        shaped = torch.tensor(values, device=images.device, dtype=images.dtype)
        return (shaped.flip(0) if order == "bgr" else shaped)[:, None, None]

    pixels = images * column(was.std, was.channel_order) + column(was.mean, was.channel_order)
    if was.channel_order != wanted.channel_order:
        pixels = pixels.flip(1)
    order = wanted.channel_order
    return (pixels - column(wanted.mean, order)) / column(wanted.std, order)
