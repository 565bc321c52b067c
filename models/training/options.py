"""What a training is asked to do. Everything is JSON-able and written beside the result."""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.errors import BadConfig
from harness.records import Options, Record
from models.training.augment import Augmentation


class Stage(Record, frozen=True, kw_only=True):
    """Train on ``images`` images of a height of ``size`` pixels, as wide as the model's shape asks.

    A detector is convolutional, so it can learn most of what it needs on small inputs, several
    times faster, if the last stage has the model's own size. With ``close_up`` it is shown a part
    of the image around an object, at the scale of the model's own size, instead of the whole
    image made smaller: no change of scale has to be unlearned later.
    """

    size: int
    images: int
    close_up: bool = False

    def __str__(self) -> str:
        return f"{self.size}{'c' if self.close_up else ''}:{self.images}"


class Pretrain(Record, frozen=True, kw_only=True):
    """Name ``images`` cut-outs of ``size`` pixels first; each shows an object and its surroundings.

    A cut-out is up to ``margin`` times as large as its object. Killed here, it starts again.
    """

    images: int
    size: int = 64
    batch: int = 32
    learning_rate: float = 2e-3
    margin: float = 1.9


class Distill(Record, frozen=True, kw_only=True):
    """Learn from a teacher beside the labels (`models.training.distill`).

    Attributes:
        teacher: the teacher's model, ``name`` or ``name:key=value``, with the same priors and
            classes. Empty: none.
        weights: its checkpoint: ``shipped``, a path or a published name.
        share: of the teacher in the class loss, 0..1; the labels have the rest.
        boxes: factor of the teacher's part in the box loss.
        temperature: softens both sides' scores; 1 leaves them.
    """

    teacher: str = ""
    weights: str = "shipped"
    share: float = 0.5
    boxes: float = 0.5
    temperature: float = 2.0


class TrainOptions(Record, frozen=True, kw_only=True):
    """One training.

    Attributes:
        model: registry name; ``model_options`` are its options, those left out at their defaults.
        data: a data set as `harness.datasets.open_dataset` takes it.
        data_images: use the first so many images; None is all.
        labels: file of the classes, one a line, background first; None takes the data's.
        images_in: ``memory`` decodes every image once and holds them all; ``files`` reads an
            image each time it is shown, for data sets that are larger than the memory.
        balance: images with a class that fewer than this share of the images show are shown more
            often (`models.training.order`); 0 shows all alike.
        start_from: checkpoint whose weights to start from: ``shipped``, a path or a published
            name; None starts from random ones.
        new_heads: start the class heads anew, for a checkpoint that knows other classes.
        backbone: checkpoint of the base net alone; all else starts random.
        pretrain: teach the backbone to name single objects first; None does not.
        freeze: what does not learn: nothing, the base net, or all but the heads.
        stages: input sizes in order; the last one must be the model's own.
        stop_after: stop when so many images were shown, although the schedule goes on; resuming
            without it continues. None trains to the end.
        batch: images per step, at least 2. On few cores small batches learn most for their time.
        learning_rate: peak, reached after ``warmup`` (fraction of all images).
        base_learning_rate, extras_learning_rate: peaks of the base net and of the extra layers;
            None is ``learning_rate``.
        schedule: after the warm-up, ``cosine`` is half a cosine down to ``final`` times the peak;
            ``steps`` multiplies by ``gamma`` at each of ``milestones``, in images shown.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9, Nesterov).
        weight_decay: on convolution kernels only.
        average: decay per step of the moving average of the weights that is kept as the result;
            0 keeps the weights themselves.
        settle: training images over which the result's batch norm statistics are counted
            (`models.training.settle`); 0 keeps the average of those during the training.
        negatives: background priors per matched prior in the class loss.
        match_iou: a prior takes the object it overlaps most if the IoU is at least this; every
            object keeps its best prior whatever the IoU.
        clip_norm: largest gradient norm.
        distill: learn from a teacher too; None does not.
        bf16: autocast to bfloat16: for GPUs; on CPUs batch norm and clips dominate and gain little.
        augmentation: how strongly images are changed.
        device: ``cpu`` or ``cuda``.
        threads: intra-op threads on the CPU.
        workers: processes that read the data once at the start, and threads that augment ahead of
            the training; 0 does all in the training thread.
        seed: of the first weights, the order of the images and their augmentation.
        out: folder of the run: ``last.pt``, ``log.csv``, ``options.json``, then the weights. None
            keeps nothing on disk, for a network in memory.
        cache: folder of the images that were read.
        resume: continue from ``last.pt`` in ``out`` where there is one.
        save_seconds: time between two checkpoints.
        evaluate: images of ``evaluate_data``, the first ones, that are scored; 0 scores none.
        evaluate_data: held-out data, whose images the training must not show. None is
            ``shapes:val`` where the training is on shapes.
        validate_every: images shown between two validations (loss and mAP) on the held-out data;
            then the best weights are the result, not the last. 0 scores at the end only.
        patience: stop after so many validations in a row that were no better than the best; 0
            never does.
    """

    model: str
    model_options: Options = msgspec.field(default_factory=dict)
    data: str = "shapes:train"
    data_images: int | None = None
    labels: str | None = None
    images_in: Literal["memory", "files"] = "memory"
    balance: float = 0.0
    start_from: str | None = None
    new_heads: bool = False
    backbone: str | None = None
    pretrain: Pretrain | None = None
    freeze: Literal["none", "base", "all-but-heads"] = "none"
    stages: tuple[Stage, ...]
    stop_after: int | None = None
    batch: int = 16
    learning_rate: float = 2e-3
    base_learning_rate: float | None = None
    extras_learning_rate: float | None = None
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.02
    final: float = 0.01
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.02
    average: float = 0.998
    settle: int = 256
    negatives: float = 3.0
    match_iou: float = 0.5
    clip_norm: float = 5.0
    distill: Distill | None = None
    augmentation: Augmentation = Augmentation()
    bf16: bool = False
    device: str = "cpu"
    threads: int = 1
    workers: int = 2
    seed: int = 0
    out: str | None = None
    cache: str = ".cache/training"
    resume: bool = True
    save_seconds: float = 60.0
    evaluate: int = 1000
    evaluate_data: str | None = None
    validate_every: int = 0
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, before any work.

        Raises:
            BadConfig: naming the option, its value and what would work.
        """
        _check_stages(self)
        _check_numbers(self)
        _check_together(self)

    @property
    def images(self) -> int:
        """Images over all stages."""
        return sum(stage.images for stage in self.stages)

    def rates(self) -> dict[str, float]:
        """Peak learning rate of each part of a detector."""
        base, extras = self.base_learning_rate, self.extras_learning_rate
        return {
            "base": self.learning_rate if base is None else base,
            "extras": self.learning_rate if extras is None else extras,
            "heads": self.learning_rate,
        }


def _check_stages(options: TrainOptions) -> None:
    if not options.stages:
        raise BadConfig("training has no stages: give at least one, as size:images")
    for stage in options.stages:
        if stage.size < 32 or stage.images < 1:
            raise BadConfig(
                f"training stage {stage} is impossible:"
                " give a size of at least 32 pixels and at least 1 image"
            )
    how = options.pretrain
    if how is not None and min(how.images, how.batch) < 2:
        raise BadConfig(
            f"pretrain.images is {how.images} and pretrain.batch"
            f" {how.batch}: give at least 2 each, or leave pretrain out"
        )


def _check_numbers(options: TrainOptions) -> None:
    if options.batch < 2:
        raise BadConfig(
            f"training option batch is {options.batch}: give at least 2, for batch norm"
        )
    for name in ("threads", "save_seconds", "gamma"):
        if getattr(options, name) <= 0:
            raise BadConfig(f"training option {name} is {getattr(options, name)}: give more than 0")
    for name in ("learning_rate", "base_learning_rate", "extras_learning_rate"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise BadConfig(
                f"training option {name} is {value}: give more than 0; freeze keeps a part as it is"
            )
    for name in ("warmup", "final", "average", "match_iou", "balance"):
        if not 0 <= getattr(options, name) < 1:
            raise BadConfig(
                f"training option {name} is {getattr(options, name)}: give 0 or more and below 1"
            )
    for name in ("evaluate", "validate_every", "patience", "workers", "settle"):
        if getattr(options, name) < 0:
            raise BadConfig(f"training option {name} is {getattr(options, name)}: give 0 or more")
    how = options.distill
    if how is not None and not (0 <= how.share <= 1 and how.boxes >= 0 and how.temperature > 0):
        raise BadConfig(
            f"distill has share {how.share}, boxes {how.boxes} and temperature {how.temperature}:"
            " give a share of 0 to 1, boxes of 0 or more and a temperature above 0"
        )


def _check_together(options: TrainOptions) -> None:
    """Refuse options that contradict each other."""
    if options.backbone is not None and options.start_from is not None:
        raise BadConfig("start_from and backbone are both given: a training starts from one")
    if options.new_heads and options.start_from is None:
        raise BadConfig("new_heads is for a start_from checkpoint: give one, or leave it out")
    if options.freeze != "none" and options.pretrain is not None:
        raise BadConfig(
            f"pretrain teaches the base net, which freeze={options.freeze} keeps: leave out one"
        )
    if (options.schedule == "steps") != bool(options.milestones):
        raise BadConfig(
            f"schedule is {options.schedule} with milestones {list(options.milestones)}: give"
            " schedule=steps and milestones in images shown together, such as milestones=8000,11000"
        )
    if list(options.milestones) != sorted(set(options.milestones)):
        raise BadConfig(f"milestones {list(options.milestones)} do not rise: give them in order")
    if options.validate_every and not options.evaluate:
        raise BadConfig("validate_every needs evaluate, the number of held-out images: give both")
    if options.patience and not options.validate_every:
        raise BadConfig("patience counts validations: give validate_every too, in images shown")
    if options.distill is not None and not options.distill.teacher:
        raise BadConfig("distill has no teacher: give distill.teacher=MODEL")


def default_stages(size: int) -> tuple[Stage, ...]:
    """For a model that sees ``size`` pixels: close-ups of about half of it, then whole images."""
    half = max(32, round(size / 64) * 32)
    return (Stage(size=half, images=16_000, close_up=True), Stage(size=size, images=6_000))


DEFAULT_PRETRAIN = Pretrain(images=28_800)
"""What goes before `default_stages`."""
