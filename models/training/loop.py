"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from tqdm import tqdm

from harness.errors import BadConfig, DetbenchError
from harness.records import ModelSpec
from models._ssd import Ssd
from models.training.batches import Batch, Input, batches, open_feed, stage_size
from models.training.distill import Teacher, distilled
from models.training.loss import Answers, Loss, Targets, multibox
from models.training.options import Distill, Stage, TrainOptions
from models.training.parts import make_optimizer, set_rates, set_training
from models.training.pretrain import pretrain
from models.training.rates import factor
from models.training.scoring import HeldOut
from models.training.settle import settle
from models.training.state import (
    BEST,
    STATE,
    Average,
    Log,
    Progress,
    Validation,
    read,
    restore,
    save,
    write,
)

AfterStep = Callable[[int], None]
"""Called after each optimizer step with its number, counted from 1."""


class TrainingDiverged(DetbenchError):
    """The loss stopped being a number; the last good state is kept."""


class Step(NamedTuple):
    """One optimizer step: its number from 0, its stage, its first image."""

    number: int
    stage: Stage
    first: int


class Around(NamedTuple):
    """What surrounds a training beside its options.

    ``held_out`` is what it is validated on; ``after_step`` may change the network, to keep what an
    optimizer step would lose; ``teacher`` answers beside the labels.
    """

    held_out: HeldOut | None = None
    after_step: AfterStep | None = None
    teacher: Teacher | None = None


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


class Trainer:
    """One training in progress: the network, its average, its optimizer, its data."""

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        options: TrainOptions,
        around: Around,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Open the data; take up a state that is there, else pretrain where that is asked for.

        Raises:
            BadConfig: options that cannot be followed.
            BadAnnotation, BadImage: data that cannot be learned.
        """
        self.options, self.spec, self.around = options, spec, around
        self.network = network.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs know no device with memory_format
        set_training(self.network, options.freeze)
        self.average = Average(self.network, options.average)
        self.optimizer = make_optimizer(self.network, options)
        self.feed = open_feed(spec, options)
        self.progress = Progress(notes=notes)
        self.best: dict[str, Tensor] | None = None
        self.state = None if options.out is None else Path(options.out) / STATE
        if options.resume and self.state is not None and self.state.is_file():
            self._restore(self.state)
        elif options.pretrain is not None:
            self._pretrain(options)

    def run(self) -> list[dict[str, float]]:
        """Do the steps that are left, or until patience ends.

        Returns:
            The log of these steps, by the names of `Log.COLUMNS`.

        Raises:
            TrainingDiverged: the loss or its gradient is not finite.
        """
        options = self.options
        total = len(steps(options))
        plan = steps_to_do(options, self.progress.step)
        if self.progress.out_of_patience(options.patience):
            plan = []
        log = Log(self._file("log.csv"), after=self.progress.step)
        bar = tqdm(
            total=self.progress.step + len(plan),
            initial=self.progress.step,
            desc=self.spec.name,
            unit="step",
            mininterval=1.0,
        )
        before, began = self.progress.seconds, time.monotonic()
        saved, smooth = began, 0.0
        try:
            for step, batch in self._fed(plan):
                tick = time.perf_counter()
                row = self.step(step, batch, done=step.number / total)
                log.row(**row, images_per_s=options.batch / (time.perf_counter() - tick))
                validated = self._validation_is_due(step, step.number + 1 == total)
                if validated:
                    self._validate(int(row["images"]))
                now = time.monotonic()
                self._advance(step=step.number + 1, seconds=before + now - began)
                smooth = row["loss"] if not smooth else 0.98 * smooth + 0.02 * row["loss"]
                bar.set_postfix_str(self._said(step, smooth), refresh=False)
                bar.update()
                last = step is plan[-1] or self.progress.out_of_patience(options.patience)
                if now - saved > options.save_seconds or last or validated:
                    log.flush()
                    self._save()
                    saved = now
                if last:
                    break
        finally:
            bar.close()
            log.close()
        return log.rows

    def load_result(self) -> None:
        """Load into the network what the training answers: the best weights, else the average."""
        if self.best is not None:
            self.network.load_state_dict(self.best)
            self.network.eval()
            return
        self.network.load_state_dict(self.average.values)
        settle(self.network, self.spec, self.feed, self.options)

    def _fed(self, plan: list[Step]) -> Iterator[tuple[Step, Batch]]:
        """Each step with its batch, stage by stage."""
        options = self.options
        for stage, group in groupby(plan, key=lambda step: step.stage):
            todo = list(group)
            spans = [(step.first, options.batch) for step in todo]
            shown = self._input(stage)
            yield from zip(
                todo, batches(self.feed, spans, shown, ahead=options.workers), strict=True
            )

    def _input(self, stage: Stage) -> Input:
        size = stage_size(stage, self.spec.image)
        if size == (self.spec.image.height, self.spec.image.width) and not stage.close_up:
            return Input(size, False, self.spec.priors)
        if not isinstance(self.network, Ssd):
            raise BadConfig(
                f"{self.spec.name} is no plain SSD here, so it trains at its own size only: give"
                f" one stage of size {self.spec.image.height}"
            )
        priors = self.network.priors_at(size, close_up=stage.close_up)
        return Input(size, stage.close_up, priors)

    def step(self, step: Step, batch: Batch, *, done: float) -> dict[str, float]:
        """One optimizer step, with its row of the log; ``done`` is the share that is behind.

        Raises:
            TrainingDiverged: the loss or its gradient is not finite.
        """
        options = self.options
        set_rates(self.optimizer, factor(options, done, step.first))
        loss = self._loss(batch)
        total = float(loss.total.detach())
        if not math.isfinite(total):
            raise self._diverged(f"loss became {total}", step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), options.clip_norm))
        if not math.isfinite(norm):
            raise self._diverged(f"gradient of the loss became {norm}", step)
        self.optimizer.step()
        if self.around.after_step is not None:
            self.around.after_step(step.number + 1)
        self.average.update(self.network, step.number + 1)
        return {
            "step": step.number + 1,
            "images": step.first + options.batch,
            "size": step.stage.size,
            "loss": total,
            "classes": float(loss.classes.detach()),
            "boxes": float(loss.boxes.detach()),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
        }

    def _loss(self, batch: Batch) -> Loss:
        options, device, teacher = self.options, self.options.device, self.around.teacher
        images = batch.images.to(device)
        kind = torch.device(device).type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=options.bf16):
            logits, offsets = self.network(images)
            taught = teacher.answers(images, self.spec.image) if teacher is not None else None
        said = Answers(logits.float(), offsets.float())
        told = Targets(batch.labels.to(device), batch.offsets.to(device))
        sigmoid = self.spec.decoding.score == "sigmoid"
        if taught is None:
            return multibox(said, told, negatives=options.negatives, sigmoid=sigmoid)
        how = options.distill or Distill()
        return distilled(said, told, taught, how, negatives=options.negatives, sigmoid=sigmoid)

    def _diverged(self, what: str, step: Step) -> TrainingDiverged:
        rate = self.optimizer.param_groups[-1]["lr"]
        kept = "no state was saved yet"
        if self.state is not None and self.state.is_file():
            kept = f"the last good state is in {self.state}"
        names = ", ".join(self.feed.names(step.first, self.options.batch))
        return TrainingDiverged(
            f"the {what} at step {step.number + 1}: {kept}, train with a learning rate below"
            f" {rate:.2g}, or look at the batch: {names}"
        )

    def _validation_is_due(self, step: Step, last: bool) -> bool:
        """After the step that passes a multiple of ``validate_every``, and at the end."""
        every, batch = self.options.validate_every, self.options.batch
        if not every or self.around.held_out is None:
            return False
        return last or (step.first + batch) // every > step.first // every

    def _validate(self, images: int) -> None:
        """Score the averaged weights, settled, and keep them where they are the best so far."""
        assert self.around.held_out is not None
        own = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.values)
        settle(self.network, self.spec, self.feed, self.options)
        score = self.around.held_out.score(self.network, self.options)
        settled = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(own)
        set_training(self.network, self.options.freeze)
        found = Validation(images=images, loss=score.loss or 0.0, map=score.value or 0.0)
        self._advance(validations=(*self.progress.validations, found))
        if self.progress.best == found:
            self.best = settled
            if (path := self._file(BEST)) is not None:
                write(path, self.best)

    def _said(self, step: Step, loss: float) -> str:
        best = self.progress.best
        found = "" if best is None else f" mAP {self.progress.validations[-1].map:.3f}"
        top = "" if best is None else f" (best {best.map:.3f})"
        return f"{step.stage.size}px loss {loss:.3f}{found}{top}"

    def _advance(self, **changes: object) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)

    def _file(self, name: str) -> Path | None:
        return None if self.options.out is None else Path(self.options.out) / name

    def _restore(self, state: Path) -> None:
        self.progress = restore(
            state, self.network, self.average, self.optimizer, self.options, self.spec.labels
        )
        if self.progress.validations:
            self.best = read(state.with_name(BEST))

    def _pretrain(self, options: TrainOptions) -> None:
        assert options.pretrain is not None
        if not isinstance(self.network, Ssd):
            raise BadConfig(f"{self.spec.name} is no plain SSD here: leave pretrain out")
        began = time.monotonic()
        pretrain(self.network, self.feed, options.pretrain)
        self.average = Average(self.network, options.average)
        self._advance(seconds=time.monotonic() - began)
        self._save()

    def _save(self) -> None:
        if self.state is not None:
            save(
                self.state,
                self.progress,
                self.network,
                self.average,
                self.optimizer,
                self.options,
                self.spec.labels,
            )
