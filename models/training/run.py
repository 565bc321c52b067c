"""Trainings from their options: of a new network with a folder, or of a network in memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from harness.datasets import open_dataset
from harness.errors import BadConfig, ResultsError
from harness.interfaces import MODELS
from harness.records import ModelSpec, encode
from harness.weights import read_labels
from models._ssd import Ssd
from models.training.distill import Teacher, open_teacher
from models.training.loop import AfterStep, Around, Trainer
from models.training.options import TrainOptions
from models.training.scoring import open_held_out
from models.training.shipping import finish
from models.training.starting import start
from models.training.state import STATE, Validation


class FineTuned(NamedTuple):
    """What a training in memory did: its log, step by step, and its validations."""

    log: list[dict[str, float]]
    validations: tuple[Validation, ...]


def train(options: TrainOptions) -> Path:
    """Train, or go on training, and write the scored weights with their manifest.

    Returns:
        The weights, ``weights.safetensors`` in the run's folder.

    Raises:
        BadConfig: options that cannot be followed.
        TrainingDiverged: the loss is not finite.
    """
    prepare(options).run()
    return finish(options)


def fine_tune(
    network: nn.Module,
    spec: ModelSpec,
    options: TrainOptions,
    *,
    after_step: AfterStep | None = None,
    teacher: Teacher | None = None,
) -> FineTuned:
    """Train ``network`` in place, and leave it in evaluation mode with what it learned.

    Nothing is written but the cache of images, unless ``options.out`` names a folder. Threads are
    the caller's. A network that is no `Ssd` (rewritten for quantization, say) trains at the model's
    own size only; its parts are told by the names of its members.

    Args:
        spec: of the network: classes, priors, how it sees.
        options: ``model`` and what says where weights come from are not looked at.
        after_step: called after each optimizer step with its number from 1, before the average is
            taken: put back here what the step must not change, such as pruned zeros.
        teacher: overrides ``options.distill.teacher``; how it is mixed in is ``options.distill``.

    Raises:
        BadConfig: options that cannot be followed.
        TrainingDiverged: the loss is not finite.
    """
    check(spec, options)
    if teacher is None and options.distill is not None:
        teacher = open_teacher(options.distill, spec, options.device)
    held_out = open_held_out(options, spec) if options.validate_every else None
    trainer = Trainer(network, spec, options, Around(held_out, after_step, teacher))
    log = trainer.run()
    trainer.load_result()
    return FineTuned(log, trainer.progress.validations)


def spec_of(options: TrainOptions) -> ModelSpec:
    """The model to train, with the classes of the labels file, else of the data.

    Raises:
        BadConfig: data without ground truth or classes.
    """
    data = open_dataset(options.data, limit=options.data_images)
    if not data.labelled:
        raise BadConfig(f"{options.data} has no ground truth: training needs boxes and classes")
    labels = read_labels(Path(options.labels)) if options.labels is not None else data.labels
    return MODELS.get(options.model)(labels, **options.model_options)


def check(spec: ModelSpec, options: TrainOptions) -> None:
    """Refuse a device that is not there, and a training that does not end at the model's own size.

    Raises:
        BadConfig: saying what there is.
    """
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it is built without CUDA
        raise BadConfig(
            f"device '{options.device}' cannot be used ({str(error).splitlines()[0]}): give cpu, or"
            " cuda where torch sees a GPU"
        ) from None
    own, last = spec.image.height, options.stages[-1].size
    if last != own:
        raise BadConfig(
            f"the last training stage has size {last}, but {spec.name} sees {own} pixels: end with"
            f" a stage of size {own}"
        )


def prepare(options: TrainOptions) -> Trainer:
    """A trainer for ``options``, with its folder made and its options written there.

    Raises:
        BadConfig: options that cannot be followed.
        BadCheckpoint: a start that is not there or does not fit.
        ResultsError: the folder cannot be written.
    """
    if options.out is None:
        raise BadConfig("no folder to train in: give one with -o")
    spec = spec_of(options)
    check(spec, options)
    held_out = open_held_out(options, spec)
    teacher = None
    if options.distill is not None:
        teacher = open_teacher(options.distill, spec, options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = spec.build()
    if not isinstance(network, Ssd):
        raise BadConfig(f"{spec.name} cannot be trained here: expected one of our SSD models")
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{out} cannot be written ({error.strerror}): choose another folder"
        ) from error
    notes: tuple[str, ...] = ()
    if not (options.resume and (out / STATE).is_file()):
        notes = start(network, spec, options)
        for sentence in notes:
            print(sentence, file=sys.stderr)
    trainer = Trainer(network, spec, options, Around(held_out=held_out, teacher=teacher), notes)
    (out / "options.json").write_bytes(encode(options))
    return trainer
