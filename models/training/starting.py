"""What a training starts from: a checkpoint of the detector, or of its base net alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from harness import weights
from harness.errors import BadCheckpoint, BadConfig
from harness.fetch.published import all_published
from harness.fetch.weights import is_fetched
from harness.records import ModelSpec
from models._checkpoint import check_fits, load_weights, read_tensors
from models._ssd import Ssd
from models.training.options import TrainOptions

HEADS = "classification_headers."
_PREFIXES = ("", "base_net.", "features.", "model.", "module.")
"""Before the names of a base net's weights, as projects save them."""


class Checkpoint(NamedTuple):
    """Where a checkpoint lies, the classes that it knows, and the IoU that matched its boxes; None
    where nothing tells.
    """

    path: Path
    labels: tuple[str, ...] | None
    match_iou: float | None = None


def find_start(spec: ModelSpec, text: str) -> Checkpoint:
    """The checkpoint that ``start_from`` means.

    Raises:
        BadCheckpoint: there is none of that name for the model.
    """
    path = Path(text)
    if text != "shipped" and path.is_file() and not path.with_suffix(".json").is_file():
        return Checkpoint(path, None)
    found = weights.find(spec.name, spec.options, text, None)
    return Checkpoint(found.path, found.labels, found.match_iou)


def start(network: Ssd, spec: ModelSpec, options: TrainOptions) -> tuple[str, ...]:
    """Load what ``options`` start from into ``network``, whose weights are random.

    Returns:
        Sentences on what was loaded and what was not.

    Raises:
        BadCheckpoint: not there, unreadable, or of another model.
        BadConfig: its classes are not the training's, and no new heads were asked for.
    """
    if options.backbone is not None:
        return _start_base_net(network, spec, options.backbone)
    if options.start_from is None:
        return ("all weights start random",)
    found = find_start(spec, options.start_from)
    path, known = found.path, found.labels
    if options.new_heads:
        return (*_start_but_heads(network, path, known), *_matched_otherwise(found, options))
    values = read_tensors(path) if path.suffix in (".pt", ".pth", ".safetensors") else {}
    if known is None and _other_heads(network, values):
        raise BadConfig(_mismatch(path, "other classes", spec))
    if known is not None and known != spec.labels:
        raise BadConfig(_mismatch(path, f"the classes {', '.join(known[1:])}", spec))
    load_weights(network, path)
    return (f"all weights start from {path.name}", *_matched_otherwise(found, options))


def _matched_otherwise(found: Checkpoint, options: TrainOptions) -> tuple[str, ...]:
    """A sentence where boxes that the checkpoint learned as objects become background, or back."""
    if found.match_iou in (None, options.match_iou):
        return ()
    return (
        f"{found.path.name} learned boxes from an IoU of {found.match_iou:g}, this training matches"
        f" from {options.match_iou:g}: set match_iou={found.match_iou:g} to build on what it knows",
    )


def _mismatch(path: Path, knows: str, spec: ModelSpec) -> str:
    return (
        f"checkpoint {path} knows {knows}, the training has {', '.join(spec.labels[1:])}: set"
        " new_heads=true to start the class heads anew, or give labels that match"
    )


def _other_heads(network: Ssd, values: Mapping[str, Tensor]) -> bool:
    """Whether the class heads of ``values`` have other shapes than the network's."""
    return any(
        key.startswith(HEADS) and key in values and value.shape != values[key].shape
        for key, value in network.state_dict().items()
    )


def _start_but_heads(network: Ssd, path: Path, known: tuple[str, ...] | None) -> tuple[str, ...]:
    """Load all but the class heads."""
    own = network.state_dict()
    values = {key: value for key, value in read_tensors(path).items() if not key.startswith(HEADS)}
    values |= {key: value for key, value in own.items() if key.startswith(HEADS)}
    check_fits(network, values, path)
    network.load_state_dict(values)
    knew = f", which knew {', '.join(known[1:])}" if known else ""
    return (
        f"base net, extra layers and box heads start from {path.name}{knew}",
        "class heads start random",
    )


def _start_base_net(network: Ssd, spec: ModelSpec, text: str) -> tuple[str, ...]:
    path = _find_backbone(spec, text)
    values = _of_base_net(network, read_tensors(path))
    if values is None:
        raise BadCheckpoint(
            f"checkpoint {path} does not hold the base net of {spec.name}: neither names nor the"
            " order of shapes fit; choose the model's backbone, and its width"
        )
    network.base_net.load_state_dict(values)
    return (f"base net starts from {path.name}", "extra layers and heads start random")


def _find_backbone(spec: ModelSpec, text: str) -> Path:
    path = Path(text)
    if path.is_file():
        return path
    entry = all_published().get(text)
    if entry is None:
        raise BadCheckpoint(
            f"backbone {text} does not exist, and no published weights have that name: check the"
            " path, or see  detbench list weights"
        )
    if entry.kind != "backbone" or entry.model != spec.name:
        raise BadCheckpoint(
            f"weights {text} are those of {entry.model}, as a {entry.kind}: backbone takes the"
            f" base net of {spec.name}; a detector is for start_from"
        )
    if not is_fetched(entry):
        raise BadCheckpoint(
            f"weights {text} are not in the cache, or are damaged: run "
            f" detbench fetch weights {text}"
        )
    return entry.path


def _of_base_net(network: Ssd, values: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The base net's weights among ``values``, by name, else by order; None where they differ."""
    own = network.base_net.state_dict()
    for prefix in _PREFIXES:
        named = {key: values[prefix + key] for key in own if prefix + key in values}
        # torch before 0.4.1 saved no counter of batches
        counted = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
        named = {**counted, **named}
        if named.keys() == own.keys() and all(own[k].shape == v.shape for k, v in named.items()):
            return named
    return _by_order(own, values)


def _by_order(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Other names, the same layers: kinds and shapes agree in order, a classifier follows."""

    def kinds(names: Mapping[str, Tensor]) -> list[tuple[str, str, tuple[int, ...]]]:
        found = [(key, key.rpartition(".")[2], tuple(value.shape)) for key, value in names.items()]
        return [each for each in found if each[1] != "num_batches_tracked"]

    mine, theirs = kinds(own), kinds(values)[: len(kinds(own))]
    if [each[1:] for each in mine] != [each[1:] for each in theirs]:
        return None
    pairs = zip(mine, theirs, strict=True)
    return {**own, **{to: values[source] for (to, *_), (source, *_) in pairs}}
