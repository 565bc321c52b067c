"""The benchmark matrix: which models, exporters, runners and threads, on which data, how long.

A matrix is a YAML file; every key can be overridden on the command line. `MATRIX` is what
`detbench run` does when nothing is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.accuracy import stopping
from harness.errors import BadConfig
from harness.policies import policy
from harness.records import Measure, Record
from harness.requests import scalar, split
from harness.units import parse_period_ns, parse_seconds


class Calibration(Record, frozen=True, kw_only=True):
    """Images that choose the quantization ranges; never the ones that are scored.

    ``data`` is by default the training split beside the data that is scored (COCO's train2017), or
    ``shapes:calibration`` for drawn scenes. ``force`` allows images that are scored as well; such
    rows are marked.
    """

    data: str | None = None
    images: int = 100
    seed: int = 0
    force: bool = False


class Training(Record, frozen=True, kw_only=True):
    """Images that recipes train on; never the ones that are scored.

    ``data`` is by default the training split beside the data that is scored, ``shapes:train`` for
    drawn scenes; ``images`` takes its first so many. A prior learns an object that it overlaps with
    an IoU of at least ``match_iou``: by default as when the weights were trained, where their
    manifest says, else 0.5.
    """

    data: str | None = None
    images: int | None = None
    match_iou: float | None = None


class Latency(Record, frozen=True, kw_only=True):
    """How latency is timed; ``tier`` is one of `harness.timing.TIERS`.

    ``pace`` times each cell at a camera's rate too (``30fps``, ``33ms``); ``sustain`` is how long
    a sustained run lasts, which is a measure of its own.
    """

    tier: Literal["smoke", "rapid", "quick", "normal"] = "rapid"
    rounds: int = 2
    seed: int = 0
    pace: str | None = None
    sustain: str = "10min"


class Accuracy(Record, frozen=True, kw_only=True):
    """How detections are scored.

    ``score`` and ``iou`` are those of precision, recall and F1; without ``score`` it is the one
    from which the model's own application shows detections. ``until`` ends a compressed model's
    evaluation when a question is answered, such as ``drop < 1 AP``; ``seed`` then orders the
    images.
    """

    score: float | None = None
    iou: float = 0.5
    until: str | None = None
    seed: int = 0


class Matrix(Record, frozen=True, kw_only=True):
    """A planned benchmark. ``None`` means: whatever is installed here, or fits this machine."""

    name: str = "default"
    models: tuple[str, ...] = ("mb2_ssd_lite",)
    weights: str = "shipped"
    labels: str | None = None
    recipes: tuple[str, ...] = ("none",)
    exporters: tuple[str, ...] | None = None
    runners: tuple[str, ...] | None = None
    threads: tuple[int, ...] | None = None
    batches: tuple[int, ...] = (1,)
    targets: tuple[str, ...] = ("cpu",)
    cpus: str | None = None
    measures: tuple[Measure, ...] = ("accuracy", "latency")
    data: str = "shapes:val"
    images: int = 300
    calibration: Calibration = Calibration()
    training: Training = Training()
    latency: Latency = Latency()
    accuracy: Accuracy = Accuracy()
    decoding: str | None = None
    timeout_s: int = 600
    jobs: int | None = None
    audit: bool = False
    skip_bad: bool = False
    shards: int | None = None
    cluster: str | None = None


def load(path: Path | None, overrides: Mapping[str, Any]) -> Matrix:
    """The matrix in ``path`` (or the default) with ``overrides``, whose keys may be dotted.

    Raises:
        BadConfig: no such file, not YAML, an unknown key, a value of another type.
    """
    plain: dict[str, Any] = (
        {} if path is None else read_yaml(path, "matrix", "models: [mb2_ssd_lite]")
    )
    where = "the command line" if path is None else str(path)
    for key, value in overrides.items():
        _set(plain, key.split("."), value)
    try:
        matrix = msgspec.convert(plain, Matrix)
    except msgspec.ValidationError as error:
        raise BadConfig(f"the matrix of {where} is wrong: {error}") from None
    _check(matrix, where)
    return matrix


def overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``["latency.tier=quick"]`` as a mapping; values are JSON scalars or comma-separated lists."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadConfig(f"--set {pair} is not key=value: write for example latency.tier=quick")
        found[key.strip()] = _value(key.strip(), value.strip())
    return found


def _value(key: str, text: str) -> Any:
    lists = {"models", "recipes", "exporters", "runners", "measures", "targets"}
    if key in lists:
        return split(text)
    if key in ("threads", "batches"):
        return _counts(key, text)
    return scalar(text)


def _counts(key: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise BadConfig(
            f"{key} '{text}' are no whole numbers: give one or several, as in {key}=1,2,4"
        )
    return [int(part) for part in parts]


def read_yaml(path: Path, what: str, example: str) -> dict[str, Any]:
    """The keys of a YAML file; ``what`` and ``example`` are for the sentence that says it is not.

    Raises:
        BadConfig: no such file, not YAML, or no keys in it.
    """
    import yaml

    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(
            f"{what} {path} cannot be read ({error.strerror}): check the path"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = str(error).replace("\n", " ")
        raise BadConfig(f"{what} {path} is not valid YAML: {place}") from None
    if not isinstance(plain, dict):
        raise BadConfig(f"{what} {path} holds no keys: expected for example '{example}'")
    return plain


def _set(plain: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        below = plain.setdefault(key, {})
        if not isinstance(below, dict):
            raise BadConfig(f"'{'.'.join(keys)}' goes below '{key}', which is a single value")
        plain = below
    plain[keys[-1]] = value


def _check(matrix: Matrix, where: str) -> None:
    positive = {
        "images": matrix.images,
        "calibration.images": matrix.calibration.images,
        "latency.rounds": matrix.latency.rounds,
        "timeout_s": matrix.timeout_s,
        "threads": min(matrix.threads or (1,), default=0),
        "batches": min(matrix.batches, default=0),
        "jobs": 1 if matrix.jobs is None else matrix.jobs,
        "shards": 1 if matrix.shards is None else matrix.shards,
        "training.images": 1 if matrix.training.images is None else matrix.training.images,
    }
    for key, value in positive.items():
        if value < 1:
            raise BadConfig(f"'{key}' of {where} is {value}, expected at least 1")
    for key, share in (("score", matrix.accuracy.score), ("iou", matrix.accuracy.iou)):
        if share is not None and not 0 < share <= 1:
            raise BadConfig(f"'accuracy.{key}' of {where} is {share}, expected above 0 and up to 1")
    least = matrix.training.match_iou
    if least is not None and not 0 <= least < 1:
        raise BadConfig(f"'training.match_iou' of {where} is {least}, expected 0 to below 1")
    if matrix.decoding is not None:
        policy(matrix.decoding)
    if matrix.accuracy.until is not None:
        stopping.parse(matrix.accuracy.until)
        if (matrix.shards or 1) > 1 or matrix.cluster:
            raise BadConfig(
                f"'accuracy.until' of {where} looks at images in one order, which shards do not"
                " keep: leave out one of them"
            )
    if matrix.latency.pace is not None:
        parse_period_ns(matrix.latency.pace, "the pace")
    parse_seconds(matrix.latency.sustain, "the duration of a sustained run")
    lists = {
        "targets": matrix.targets,
        "models": matrix.models,
        "recipes": matrix.recipes,
        "measures": matrix.measures,
    }
    for key, values in lists.items():
        if not values:
            raise BadConfig(f"'{key}' of {where} is empty: name at least one")
