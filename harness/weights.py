"""Which file holds a model's weights, and which classes they know.

Weights that detbench ships lie in ``models/weights/`` as ``<name>.safetensors`` with a manifest
``<name>.json`` beside it. A user's own file may have such a manifest, or comes with ``--labels``.
Published ones are named as in ``detbench list weights``, once ``detbench fetch weights`` has them.
Nothing here needs torch, so that a plan can be made and fingerprinted without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.cache import sha256_file
from harness.errors import BadCheckpoint, BadConfig
from harness.fetch.published import PublishedWeights, all_published, published
from harness.fetch.weights import is_fetched
from harness.records import Scalar
from harness.registry import ROOT

SHIPPED = ROOT / "models" / "weights"


class Weights(NamedTuple):
    """A checkpoint on disk. ``labels`` has the background first.

    ``match_iou`` is that of its training (`models.training.options`), None where nothing says.
    """

    path: Path
    sha256: str
    labels: tuple[str, ...]
    source: str
    match_iou: float | None = None


def find(model: str, options: Mapping[str, Scalar], weights: str, labels: Path | None) -> Weights:
    """The weights meant by ``shipped``, by a path or by a published name, with their labels.

    Raises:
        BadCheckpoint: nothing is shipped for this model and options, no such file, or published
            weights that are of another model or were not fetched.
        BadConfig: the labels are unknown, or not as many as the checkpoint's.
    """
    if weights == "shipped":
        return _shipped(model, options, labels)
    path = Path(weights)
    if not path.is_file() and weights in all_published():
        return _published(model, published(weights), labels)
    if not path.is_file():
        raise BadCheckpoint(
            f"checkpoint {path} does not exist, and no published weights have that name: check the"
            " path of --weights, or see  detbench list weights"
        )
    manifest = _manifest(path)
    known = manifest.get("labels")
    names = _renamed(known, path, labels) if labels else _labels(manifest, path)
    return Weights(path.resolve(), sha256_file(path), names, str(path), _match_iou(manifest))


def _published(model: str, entry: PublishedWeights, labels: Path | None) -> Weights:
    if entry.kind == "backbone" or entry.model != model:
        part = "the backbone of " if entry.kind == "backbone" else ""
        raise BadCheckpoint(
            f"weights {entry.name} are those of {part}{entry.model}, not of the detector {model}:"
            " see  detbench list weights"
        )
    if not is_fetched(entry):
        raise BadCheckpoint(
            f"weights {entry.name} are not in the cache, or are damaged: run "
            f" detbench fetch weights {entry.name}"
        )
    names = _renamed(entry.labels, entry.path, labels) if labels else entry.labels
    return Weights(entry.path, sha256_file(entry.path), names, f"published:{entry.name}")


def shipped_manifests() -> list[dict[str, Any]]:
    """Manifests of all shipped checkpoints, with ``file`` made absolute."""
    found = []
    for path in sorted(SHIPPED.glob("*.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["file"] = str(path.with_suffix(".safetensors"))
        found.append(manifest)
    return found


def _renamed(known: object, path: Path, labels: Path) -> tuple[str, ...]:
    """The names in ``labels``, as many as the ``known`` ones of the checkpoint in ``path``."""
    names = read_labels(labels)
    if isinstance(known, list | tuple) and len(known) != len(names):
        raise BadConfig(
            f"labels {labels} names {len(names)} classes, {path} was trained for {len(known)}:"
            f" {', '.join(map(str, known))}: leave --labels out, or give one name for each"
        )
    return names


def _shipped(model: str, options: Mapping[str, Scalar], labels: Path | None) -> Weights:
    manifests = shipped_manifests()
    for manifest in manifests:
        if manifest["model"] == model and manifest["model_options"] == dict(options):
            path = Path(manifest["file"])
            digest = sha256_file(path)
            if digest != manifest["sha256"]:
                raise BadCheckpoint(f"{path} is not what its manifest says: check it out again")
            source = f"shipped:{path.stem}"
            known = tuple(manifest["labels"])
            names = _renamed(known, path, labels) if labels else known
            return Weights(path, digest, names, source, _match_iou(manifest))
    have = ", ".join(_described(manifest) for manifest in manifests) or "none"
    asked = _described({"model": model, "model_options": dict(options)})
    raise BadCheckpoint(
        f"no weights are shipped for {asked} (shipped: {have}): give a checkpoint with --weights"
    )


def _described(manifest: Mapping[str, Any]) -> str:
    given = ",".join(f"{key}={value}" for key, value in sorted(manifest["model_options"].items()))
    return f"{manifest['model']}:{given}" if given else str(manifest["model"])


def _manifest(weights: Path) -> Mapping[str, Any]:
    """What lies beside a checkpoint; empty where nothing does. Raises BadConfig."""
    path = weights.with_suffix(".json")
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadConfig(f"{path} is no manifest of weights: correct it, or move it away")
    return found


def _labels(manifest: Mapping[str, Any], weights: Path) -> tuple[str, ...]:
    if not manifest:
        raise BadConfig(
            f"the classes of {weights} are unknown: give --labels FILE, one name a line,"
            " background first"
        )
    names = manifest.get("labels")
    if not isinstance(names, list):
        path = weights.with_suffix(".json")
        raise BadConfig(f"{path} has no list 'labels': give --labels FILE")
    return tuple(map(str, names))


def _match_iou(manifest: Mapping[str, Any]) -> float | None:
    """That of the training, where the manifest is one of ours."""
    options = manifest.get("options")
    found = options.get("match_iou") if isinstance(options, dict) else None
    return float(found) if isinstance(found, int | float) and 0 <= found < 1 else None


def read_labels(path: Path) -> tuple[str, ...]:
    """The classes in a text file, one a line, background first. Raises BadConfig."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"labels {path} cannot be read ({error}): check the path") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2:
        raise BadConfig(
            f"labels {path} names {len(names)} classes, expected background and at least one"
        )
    return names
