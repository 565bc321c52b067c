"""A user's own exported file, made an artifact: how to feed and decode it, said or inferred.

A manifest in YAML (or JSON) beside the file says what the file cannot: mean and standard deviation
of the image, classes, priors. Names, shapes, data types and quantization are read from the file by
the runtime that will run it. Before anything is written the file runs once on a noise picture, so
that outputs of another kind than said are found at once. docs/your-own-file.md has examples.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import artifacts
from harness.cache import cache_dir, sha256_file, sha256_text
from harness.config import read_yaml
from harness.errors import BadConfig, MissingExtra
from harness.extras import installed
from harness.foreign_tensors import (
    ImageAsked,
    OutputsAsked,
    check_values,
    choose_outputs,
    image_of,
    input_of,
    outputs_of,
)
from harness.images import Preprocessor
from harness.interfaces import MODELS, RUNNERS, Runner, RunOptions
from harness.policies import policy
from harness.records import Artifact, OutputKind, Record, TensorSpec
from harness.requests import parse
from harness.weights import read_labels

EXPORTER = "adopted"
"""Stands where an artifact of ours names its exporter."""
FORMATS = {".onnx": "onnx", ".tflite": "tflite"}


class FileManifest(Record, frozen=True, kw_only=True):
    """What a user says about a file. ``decoding`` holds a policy's name and changes to it."""

    name: str | None = None
    image: ImageAsked = ImageAsked()
    outputs: OutputsAsked = OutputsAsked()
    labels: tuple[str, ...] | str | None = None
    priors: str | None = None
    decoding: dict[str, Any] = msgspec.field(default_factory=dict)
    precision: Literal["float32", "int8"] | None = None


class Described(NamedTuple):
    """A file as its runtime sees it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def adopt(file: Path, manifest: Path | None = None, output: Path | None = None) -> Path:
    """Make the artifact's folder, ``output`` or one in the cache; answers the folder.

    Args:
        manifest: default: the file's name with ``.yaml``, ``.yml`` or ``.json``, if there is one.

    Raises:
        BadConfig: a manifest that cannot be followed, or that lacks what cannot be inferred.
        ArtifactDamaged: the runtime cannot load the file.
        MissingExtra: no installed runner runs the file's format.
    """
    if not file.is_file():
        raise BadConfig(f"{file} does not exist: give a .onnx or .tflite file")
    source = manifest or _beside(file)
    asked = _read(source) if source else FileManifest()
    where = str(source) if source else f"{file} (it has no manifest {file.with_suffix('.yaml')})"
    runner = _runner(file)
    found = Described(*runner.describe(file))
    artifact, priors = _artifact(file, asked, found, where, source)
    folder = output or cache_dir("adopted") / artifact.fingerprint[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staging-"))
    try:
        shutil.copyfile(file, staging / file.name)
        artifacts.write_extras(staging, priors)
        files = artifacts.entries(staging, [file.name])
        artifact = msgspec.structs.replace(artifact, files=files)
        _probe(runner, artifact, staging, where)
        artifacts.publish(staging, artifact, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _beside(file: Path) -> Path | None:
    there = (file.with_suffix(suffix) for suffix in (".yaml", ".yml", ".json"))
    return next((path for path in there if path.is_file()), None)


def _read(path: Path) -> FileManifest:
    plain = read_yaml(path, "manifest", "labels: [background, person]")  # JSON is YAML
    try:
        return msgspec.convert(plain, FileManifest)
    except msgspec.ValidationError as error:
        raise BadConfig(f"manifest {path} is wrong: {error}") from None


def _runner(file: Path) -> Runner:
    """The first installed runner of the file's format."""
    if file.suffix not in FORMATS:
        known = " and ".join(FORMATS)
        raise BadConfig(f"{file} is no {known} file by its name: other formats cannot be adopted")
    wanted = FORMATS[file.suffix]
    plugins = [RUNNERS.get(name) for name in RUNNERS.names()]
    able = [plugin for plugin in plugins if wanted in plugin.formats]
    for plugin in able:
        if all(installed(module) for module in plugin.modules):
            return plugin()
    extras = " or ".join(f"pip install -e '.[{plugin.extra}]'" for plugin in able)
    raise MissingExtra(f"nothing here runs {wanted}, which {file} is: run  {extras}")


def _artifact(
    file: Path, asked: FileManifest, found: Described, where: str, source: Path | None
) -> tuple[Artifact, NDArray[np.float32] | None]:
    """The manifest of the artifact, whose files are still to be listed, and the priors."""
    image, fed = image_of(input_of(found.inputs, asked.image, where), asked.image, where)
    kind, names = choose_outputs(found.outputs, asked.outputs, where)
    answered = outputs_of(found.outputs, kind, names)
    labels = _labels(asked, kind, answered, where, source)
    priors = _priors(asked, kind, labels, answered, where, source)
    decoding = dict(asked.decoding)
    rules = policy(str(decoding.pop("policy", "detbench")), **decoding)
    digest = sha256_file(file)
    integer = fed.dtype != "float32" or any(spec.scale is not None for spec in answered)
    told = msgspec.json.encode(asked, order="sorted").decode()
    extra = priors.tobytes().hex() if priors is not None else ""
    artifact = Artifact(
        model=asked.name or file.stem,
        model_options={},
        weights_sha256=digest,
        weights_source=file.name,
        recipe="none",
        exporter=EXPORTER,
        format=FORMATS[file.suffix],
        precision=asked.precision or ("int8" if integer else "float32"),
        options={},
        files=(),
        sha256=digest,
        size_bytes=file.stat().st_size,
        inputs=(fed,),
        outputs=answered,
        image=image,
        decoding=rules,
        labels=labels,
        calibration=None,
        toolchain={},
        fingerprint=sha256_text([digest, told, ",".join(labels), extra]),
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        export_ns=0,
        notes=(artifacts.NO_REFERENCE,),
        output_kind=kind,
    )
    return artifact, priors


def _labels(
    asked: FileManifest,
    kind: OutputKind,
    answered: tuple[TensorSpec, ...],
    where: str,
    source: Path | None,
) -> tuple[str, ...]:
    """The classes said, held to the file's own number; numbered ones where none are said."""
    count = None if kind == "detections" else answered[0].shape[-1]
    if asked.labels is None:
        if count is None:
            raise BadConfig(
                f"{where} names no classes: give labels, a list or a file of names, background"
                " first"
            )
        return ("background", *(f"class {number}" for number in range(1, count)))
    told = asked.labels
    labels = read_labels(_near(told, source)) if isinstance(told, str) else told
    if len(labels) < 2 or (count is not None and len(labels) != count):
        wanted = f"{count} of them" if count is not None else "at least two"
        raise BadConfig(
            f"{where} names {len(labels)} classes, the file needs {wanted}: list them all, the"
            " background first"
        )
    return labels


def _priors(
    asked: FileManifest,
    kind: OutputKind,
    labels: tuple[str, ...],
    answered: tuple[TensorSpec, ...],
    where: str,
    source: Path | None,
) -> NDArray[np.float32] | None:
    """``(priors, 4)`` center form, from a ``.npy`` or ``.json`` file or from a model's rule."""
    if kind != "heads":
        return None
    if asked.priors is None:
        raise BadConfig(
            f"{where} has no priors, and raw heads cannot be decoded without: give priors, a .npy"
            " or .json file of (cx, cy, w, h) rows relative to the image, or a model's name"
        )
    if asked.priors.endswith((".npy", ".json")):
        boxes = _read_priors(_near(asked.priors, source))
    else:
        request = parse(asked.priors)
        boxes = MODELS.get(request.name)(labels, **request.options).priors
    expected = (answered[0].shape[1], 4)
    if boxes.shape != expected or not np.isfinite(boxes).all():
        raise BadConfig(
            f"priors {asked.priors} have shape {boxes.shape}, the file's heads need {expected} of"
            " finite numbers: give the priors that it was trained with"
        )
    return boxes


def _read_priors(path: Path) -> NDArray[np.float32]:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        return np.asarray(json.loads(path.read_text(encoding="utf-8")), np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise BadConfig(f"priors {path} cannot be read ({error}): check the file") from None


def _near(name: str, source: Path | None) -> Path:
    """A path that a manifest gives is relative to the manifest."""
    return (source.parent if source else Path()) / name


def _probe(runner: Runner, artifact: Artifact, folder: Path, where: str) -> None:
    """Run the file once. Raises BadConfig where it answers what the manifest does not say."""
    sides = (artifact.image.height, artifact.image.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, sides, dtype=np.uint8)
    with runner.open(artifact, folder, RunOptions()) as session:
        answer = session.run(Preprocessor(artifact.image, artifact.inputs[0])(noise))
    for array, spec in zip(answer, artifact.outputs, strict=True):
        if array.shape != spec.shape:
            raise BadConfig(
                f"{where}: output '{spec.name}' has shape {array.shape} when it runs, the file"
                f" says {spec.shape}: export it with fixed sizes"
            )
    check_values(artifact, answer, where)
