"""What a training is asked to do. Everything is JSON-able and written beside the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import Options, Record, encode
from harness.registry import suggest
from harness.requests import Request, scalar
from models.training.augment import Augmentation


class Stage(Record, frozen=True, kw_only=True):
    """Train on ``images`` images at ``size`` by ``size`` pixels.

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


class TrainOptions(Record, frozen=True, kw_only=True):
    """One training.

    Attributes:
        model: registry name; ``model_options`` are its options, those left out at their defaults.
        data: a data set as `harness.datasets.open_dataset` takes it.
        data_images: use the first so many images; None is all.
        start_from: checkpoint whose weights to start from; None starts from random ones.
        pretrain: teach the backbone to name single objects first; None does not.
        stages: input sizes in order; the last one must be the model's own.
        stop_after: stop when so many images were shown, although the schedule goes on; resuming
            without it continues. None trains to the end.
        batch: images per step, at least 2. On few cores small batches learn most for their time.
        learning_rate: peak, reached after ``warmup`` (fraction of all images), then a half cosine
            down to ``final`` times the peak.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9, Nesterov).
        weight_decay: on convolution kernels only.
        average: decay per step of the moving average of the weights that is kept as the result;
            0 keeps the weights themselves.
        negatives: background priors per matched prior in the class loss.
        match_iou: a prior takes the object it overlaps most if the IoU is at least this; every
            object keeps its best prior whatever the IoU.
        clip_norm: largest gradient norm.
        bf16: autocast to bfloat16: for GPUs; on CPUs batch norm and clips dominate and gain little.
        augmentation: how strongly images are changed.
        device: ``cpu`` or ``cuda``.
        threads: intra-op threads on the CPU.
        workers: processes that read the data once at the start, and threads that augment ahead of
            the training; 0 does all in the training thread.
        seed: of the first weights, the order of the images and their augmentation.
        out: folder of the run: ``last.pt``, ``log.csv``, ``options.json``, then the weights.
        cache: folder of the images that were read.
        resume: continue from ``last.pt`` in ``out`` where there is one.
        save_seconds: time between two checkpoints.
        evaluate: images of ``evaluate_data`` that the result is scored on; 0 leaves it unscored.
    """

    model: str
    model_options: Options = msgspec.field(default_factory=dict)
    data: str = "shapes:train"
    data_images: int | None = None
    start_from: str | None = None
    pretrain: Pretrain | None = None
    stages: tuple[Stage, ...]
    stop_after: int | None = None
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: float = 0.02
    final: float = 0.01
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.02
    average: float = 0.998
    negatives: float = 3.0
    match_iou: float = 0.5
    clip_norm: float = 5.0
    augmentation: Augmentation = Augmentation()
    bf16: bool = False
    device: str = "cpu"
    threads: int = 1
    workers: int = 2
    seed: int = 0
    out: str
    cache: str = ".cache/training"
    resume: bool = True
    save_seconds: float = 60.0
    evaluate: int = 1000
    evaluate_data: str = "shapes:val"

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, before any work.

        Raises:
            BadConfig: naming the option, its value and what would work.
        """
        for stage in self.stages:
            if stage.size < 32 or stage.images < 1:
                raise BadConfig(
                    f"training stage {stage} is impossible:"
                    " give a size of at least 32 pixels and at least 1 image"
                )
        if self.pretrain is not None and min(self.pretrain.images, self.pretrain.batch) < 2:
            raise BadConfig(
                f"pretrain.images is {self.pretrain.images} and pretrain.batch"
                f" {self.pretrain.batch}: give at least 2 each, or leave pretrain out"
            )
        if not self.stages:
            raise BadConfig("training has no stages: give at least one, as size:images")
        if self.batch < 2:
            raise BadConfig(
                f"training option batch is {self.batch}: give at least 2, for batch norm"
            )
        for name in ("threads", "learning_rate", "save_seconds"):
            if getattr(self, name) <= 0:
                raise BadConfig(
                    f"training option {name} is {getattr(self, name)}: give more than 0"
                )
        for name in ("warmup", "final", "average", "match_iou"):
            if not 0 <= getattr(self, name) < 1:
                raise BadConfig(
                    f"training option {name} is {getattr(self, name)}: give 0 or more and below 1"
                )

    @property
    def images(self) -> int:
        """Images over all stages."""
        return sum(stage.images for stage in self.stages)


def default_stages(size: int) -> tuple[Stage, ...]:
    """For a model that sees ``size`` pixels: close-ups of about half of it, then whole images."""
    half = max(32, round(size / 64) * 32)
    return (Stage(size=half, images=16_000, close_up=True), Stage(size=size, images=6_000))


DEFAULT_PRETRAIN = Pretrain(images=28_800)
"""What goes before `default_stages`."""


def from_settings(
    model: str, model_options: Mapping[str, Any], out: str, settings: Sequence[str]
) -> TrainOptions:
    """Options from ``key=value`` texts, as the command line gives them.

    ``stages`` is written ``size:images,size:images``, with a ``c`` after the size for close-ups;
    parts of a group are written ``augmentation.crop=0.3``, ``pretrain.images=20000``.

    Raises:
        BadConfig: an unknown key, or a value that does not fit.
    """
    plain: dict[str, Any] = {"model": model, "model_options": dict(model_options), "out": out}
    known = describe()
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or key in ("model", "model_options", "out"):
            raise BadConfig(f"training option '{setting}' is not key=value: write key=value")
        if key not in known:
            raise BadConfig(f"training has no option '{key}': {suggest(key, known)}")
        group, dot, name = key.partition(".")
        if dot:
            plain.setdefault(group, {})[name] = scalar(text)
        else:
            plain[key] = _stages(text) if key == "stages" else scalar(text)
    if "stages" not in plain:
        spec = MODELS.get(model)(("background", "object"), **model_options)
        plain["stages"] = msgspec.to_builtins(default_stages(spec.image.height))
        plain.setdefault("pretrain", msgspec.to_builtins(DEFAULT_PRETRAIN))
    try:
        return msgspec.convert(plain, TrainOptions)
    except msgspec.ValidationError as error:
        raise BadConfig(f"training options do not fit: {error}") from None


def describe() -> dict[str, str]:
    """Every option that a setting can change, with its default as text."""
    known: dict[str, str] = {}
    for field in msgspec.structs.fields(TrainOptions):
        if field.name == "stages":
            known["stages"] = "size:images,… (naming cut-outs, close-ups, then whole images)"
        elif field.name in GROUPS:
            parts = _plain(GROUPS[field.name])
            known |= {f"{field.name}.{name}": str(value) for name, value in parts.items()}
        elif field.default is not msgspec.NODEFAULT:
            known[field.name] = str(field.default)
    return known


def command(options: TrainOptions) -> str:
    """The command line that runs this training again: every option that is not at its default."""
    request = Request(name=options.model, options=options.model_options)
    words = ["detbench", "train", str(request), "-o", options.out]
    plain, defaults = _plain(options), describe()
    for key, value in plain.items():
        if key in GROUPS:
            changed = {f"{key}.{name}": each for name, each in (value or {}).items()}
        else:
            changed = {key: value}
        for name, each in changed.items():
            if name == "stages":
                text = ",".join(map(str, options.stages))
                words += ["--set", f"stages={text}"]
            elif name in defaults and str(each) != defaults[name] and name not in PLACES:
                words += ["--set", f"{name}={each}"]
    return " ".join(words)


GROUPS: dict[str, Record] = {"augmentation": Augmentation(), "pretrain": Pretrain(images=0)}
"""Options that have parts, with the default of each part; ``pretrain.images`` 0 is none."""
PLACES = ("cache", "resume", "save_seconds")
"""Options that say where and how often things are kept, not what is trained."""


def _plain(record: Record) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.json.decode(encode(record))
    return plain


def _stages(text: str) -> list[dict[str, Any]]:
    try:
        pairs = [stage.split(":") for stage in text.split(",")]
        return [
            {
                "size": int(size.removesuffix("c")),
                "images": int(images),
                "close_up": size.endswith("c"),
            }
            for size, images in pairs
        ]
    except ValueError:
        raise BadConfig(
            f"training stages '{text}' are not size:images,size:images: write, for example,"
            " 128:40000,160c:8000,256:8000"
        ) from None
