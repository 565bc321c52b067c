"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from harness.datasets import open_dataset
from harness.errors import BadConfig, DetbenchError
from harness.interfaces import MODELS
from harness.records import ModelSpec, encode
from models._checkpoint import load_weights
from models._ssd import Ssd
from models.training.batches import Batch, Feed, Input, batches
from models.training.loss import multibox
from models.training.options import Stage, TrainOptions
from models.training.pretrain import pretrain
from models.training.rates import learning_rate
from models.training.shipping import finish
from models.training.state import STATE, Average, Log, Progress, restore, save
from models.training.store import open_store


class TrainingDiverged(DetbenchError):
    """The loss stopped being a number; the last good state is kept."""


class Step(NamedTuple):
    """One optimizer step: its number from 0, its stage, its first image."""

    number: int
    stage: Stage
    first: int


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


def steps(options: TrainOptions) -> list[Step]:
    """All steps of a training; every batch is full, so a stage may run a few images over."""
    planned: list[Step] = []
    for stage in options.stages:
        for _ in range(math.ceil(stage.images / options.batch)):
            planned.append(Step(len(planned), stage, len(planned) * options.batch))
    return planned


def steps_to_do(options: TrainOptions, done: int) -> list[Step]:
    """The steps that are left after the first ``done``, up to ``stop_after``."""
    limit = options.stop_after
    return [
        step
        for step in steps(options)[done:]
        if limit is None or step.first + options.batch <= limit
    ]


def make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimizer; weight decay acts on kernels, not on biases and batch norm."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9, nesterov=True)


class Trainer:
    """One training in progress: the network, its average, its optimizer, its data."""

    def __init__(self, options: TrainOptions, spec: ModelSpec) -> None:
        self.options, self.spec = options, spec
        self.out = Path(options.out)
        torch.manual_seed(options.seed)
        network = spec.build()
        if not isinstance(network, Ssd):
            raise BadConfig(f"{spec.name} cannot be trained here: expected one of our SSD models")
        if options.start_from is not None:
            load_weights(network, Path(options.start_from))
        self.network = network.to(options.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's stubs know no device with memory_format
        self.average = Average(self.network, options.average)
        self.optimizer = make_optimizer(self.network, options)
        store = open_store(
            options.data, options.data_images, Path(options.cache), workers=options.workers
        )
        self.feed = Feed(
            store,
            spec.image,
            spec.decoding,
            options.augmentation,
            options.match_iou,
            options.seed,
        )
        self.progress = Progress(0, 0.0)
        self.state = self.out / STATE
        if options.resume and self.state.is_file():
            self.progress = restore(self.state, self.network, self.average, self.optimizer, options)
        elif options.pretrain is not None:
            began = time.monotonic()
            pretrain(self.network, self.feed, options.pretrain)
            self.average = Average(self.network, options.average)
            self.progress = Progress(0, time.monotonic() - began)
            self._save()

    def run(self) -> None:
        """Do the steps that are left.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        total = len(steps(self.options))
        plan = steps_to_do(self.options, self.progress.step)
        log = Log(self.out / "log.csv", after=self.progress.step)
        began, saved = time.monotonic(), time.monotonic()
        before = self.progress.seconds
        bar = tqdm(
            total=self.progress.step + len(plan),
            initial=self.progress.step,
            desc=self.spec.name,
            unit="step",
            mininterval=1.0,
        )
        smooth = 0.0
        try:
            for step, batch in self._fed(plan):
                tick = time.perf_counter()
                row = self._step(step, batch, done=step.number / total)
                took = time.perf_counter() - tick
                log.row(**row, images_per_s=self.options.batch / took)
                now = time.monotonic()
                self.progress = Progress(step.number + 1, before + now - began)
                smooth = row["loss"] if not smooth else 0.98 * smooth + 0.02 * row["loss"]
                bar.set_postfix_str(f"{step.stage.size}px loss {smooth:.3f}", refresh=False)
                bar.update()
                if now - saved > self.options.save_seconds or step is plan[-1]:
                    log.flush()
                    self._save()
                    saved = now
        finally:
            bar.close()
            log.close()

    def _fed(self, plan: list[Step]) -> Iterator[tuple[Step, Batch]]:
        """Each step with its batch, stage by stage."""
        options = self.options
        for stage, group in groupby(plan, key=lambda step: step.stage):
            todo = list(group)
            square = (stage.size, stage.size)
            priors = self.network.priors_at(square, close_up=stage.close_up)
            spans = [(step.first, options.batch) for step in todo]
            shown = Input(stage.size, stage.close_up, priors)
            yield from zip(
                todo, batches(self.feed, spans, shown, ahead=options.workers), strict=True
            )

    def _step(self, step: Step, batch: Batch, *, done: float) -> dict[str, float]:
        options, device = self.options, self.options.device
        rate = learning_rate(
            options.learning_rate, done, warmup=options.warmup, final=options.final
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, dtype=torch.bfloat16, enabled=options.bf16):
            logits, offsets = self.network(batch.images.to(device))
        loss = multibox(
            logits.float(),
            offsets.float(),
            batch.labels.to(device),
            batch.offsets.to(device),
            negatives=options.negatives,
        )
        total = float(loss.total.detach())
        if not math.isfinite(total):
            raise TrainingDiverged(
                f"the loss became {total} at step {step.number + 1}: the last good state is in"
                f" {self.state}, train with a learning rate below {rate:.2g}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        nn.utils.clip_grad_norm_(self.network.parameters(), options.clip_norm)
        self.optimizer.step()
        self.average.update(self.network, step.number + 1)
        return {
            "step": step.number + 1,
            "images": step.first + options.batch,
            "size": step.stage.size,
            "loss": total,
            "classes": float(loss.classes.detach()),
            "boxes": float(loss.boxes.detach()),
            "learning_rate": rate,
        }

    def _save(self) -> None:
        save(self.state, self.progress, self.network, self.average, self.optimizer, self.options)


def prepare(options: TrainOptions) -> Trainer:
    """A trainer for ``options``, with its folder made and its options written there.

    Raises:
        BadConfig: the model's input is not square, or the last stage is not at its size.
    """
    data = open_dataset(options.data, limit=options.data_images)
    spec = MODELS.get(options.model)(data.labels, **options.model_options)
    own = spec.image.height
    if spec.image.width != own:
        raise BadConfig(
            f"{options.model} sees {own} x {spec.image.width} pixels, and training shows square"
            " images only: choose a model with a square input"
        )
    if options.stages[-1].size != own:
        raise BadConfig(
            f"the last training stage has size {options.stages[-1].size}, but {options.model}"
            f" sees {own} pixels: end with a stage of size {own}"
        )
    torch.set_num_threads(options.threads)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options, spec)
    (out / "options.json").write_bytes(encode(options))
    return trainer
