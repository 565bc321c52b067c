"""Training options as text: what the command line gives, and the command line of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import Record, encode
from harness.registry import suggest
from harness.requests import Request, scalar
from models.training.augment import Augmentation
from models.training.options import (
    DEFAULT_PRETRAIN,
    Distill,
    Pretrain,
    TrainOptions,
    default_stages,
)

GROUPS: dict[str, Record] = {
    "augmentation": Augmentation(),
    "pretrain": Pretrain(images=0),
    "distill": Distill(),
}
"""Options that have parts, with the default of each; no images or no teacher is none at all."""
PLACES = ("cache", "resume", "save_seconds")
"""Options that say where and how often things are kept, not what is trained."""
TEXTS = ("data", "labels", "start_from", "backbone", "evaluate_data", "cache", "device")
"""Options whose values are text, also where they look like a number."""


def from_settings(
    model: str, model_options: Mapping[str, Any], out: str, settings: Sequence[str]
) -> TrainOptions:
    """Options from ``key=value`` texts, as the command line gives them.

    ``stages`` is written ``size:images,size:images``, with a ``c`` after the size for close-ups;
    parts of a group are written ``augmentation.crop=0.3``, ``pretrain.images=20000``. Without
    stages, they are `default_stages`, after naming cut-outs where the weights start random.

    Raises:
        BadConfig: an unknown key, one that is given twice, or a value that does not fit.
    """
    plain: dict[str, Any] = {"model": model, "model_options": dict(model_options), "out": out}
    known = describe()
    seen: set[str] = set()
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or key in ("model", "model_options", "out"):
            raise BadConfig(f"training option '{setting}' is not key=value: write key=value")
        if key not in known:
            raise BadConfig(f"training has no option '{key}': {suggest(key, known)}")
        if key in seen:
            raise BadConfig(f"training option '{key}' is given twice: give it once")
        seen.add(key)
        group, dot, name = key.partition(".")
        if dot:
            plain.setdefault(group, {})[name] = scalar(text)
        else:
            plain[key] = _value(key, text)
    if "stages" not in plain:
        spec = MODELS.get(model)(("background", "object"), **model_options)
        plain["stages"] = msgspec.to_builtins(default_stages(spec.image.height))
        if not {"start_from", "backbone", "freeze"} & plain.keys():
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
            known |= {f"{field.name}.{name}": _text(value) for name, value in parts.items()}
        elif field.default is not msgspec.NODEFAULT and field.name != "out":
            known[field.name] = _text(field.default)
    return known


def command(options: TrainOptions) -> str:
    """The command line that runs this training again: every option that is not at its default."""
    request = Request(name=options.model, options=options.model_options)
    words = ["detbench", "train", str(request), "-o", str(options.out)]
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
            elif name in defaults and _text(each) != defaults[name] and name not in PLACES:
                words += ["--set", f"{name}={_text(each)}"]
    return " ".join(words)


def _text(value: Any) -> str:
    """A value as a setting writes it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(record: Record) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.json.decode(encode(record))
    return plain


def _value(key: str, text: str) -> Any:
    if key == "stages":
        return _stages(text)
    if key == "milestones":
        return [scalar(part) for part in text.split(",") if part]
    return text if key in TEXTS else scalar(text)


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
