"""From a training's last state to a checkpoint that can be shipped: weights and their manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import torch

from harness.cache import sha256_file
from harness.datasets import open_dataset
from harness.errors import BadCheckpoint
from harness.interfaces import MODELS
from harness.provenance import git_revision, versions
from harness.records import ModelSpec, Options, Record, encode
from harness.weights import SHIPPED
from models._checkpoint import load_weights, save_weights
from models.training.options import TrainOptions, command
from models.training.scoring import Score, score
from models.training.state import STATE, read

WEIGHTS = "weights.safetensors"


class WeightsManifest(Record, frozen=True, kw_only=True):
    """Where a checkpoint comes from. Lies beside it as ``<same name>.json``.

    Attributes:
        labels: class names, background first.
        source_precision: what the weights were trained as, and what is stored.
        options: the training, all options as asked.
        commands: the trainings that led here, in this order; more than one where a training
            started from another's weights. ``options`` are the last one's.
        images_seen: images shown, augmented ones counted each time, over all commands.
        seconds: wall time of the training steps, over all commands.
        revision: of the code that trained; ``dirty`` where it had uncommitted changes.
        score: of the stored weights, not of the ones before they were stored.
    """

    model: str
    model_options: Options
    labels: tuple[str, ...]
    sha256: str
    size_bytes: int
    source_precision: str
    data: str
    data_images: int
    images_seen: int
    seconds: float
    seed: int
    commands: tuple[str, ...]
    options: TrainOptions
    revision: str
    dirty: bool
    versions: dict[str, str]
    score: Score | None
    schema: int = 1


def finish(options: TrainOptions) -> Path:
    """Write and score the averaged weights of the last state in ``options.out``.

    Works on a finished training and, for a snapshot, on one that still runs.

    Returns:
        The weights; their manifest lies beside them.

    Raises:
        BadCheckpoint: there is no state.
    """
    out = Path(options.out)
    if not (out / STATE).is_file():
        raise BadCheckpoint(f"{out} has no training state {STATE}: train first")
    state = read(out / STATE)
    before = _manifest_before(options)
    data = open_dataset(options.data, limit=options.data_images)
    spec = MODELS.get(options.model)(data.labels, **options.model_options)
    network = spec.build()
    network.load_state_dict(state["average"])
    path = out / WEIGHTS
    save_weights(network, path)
    manifest = WeightsManifest(
        model=spec.name,
        model_options=dict(spec.options),
        labels=spec.labels,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        source_precision="trained in float32, kernels stored as float16, the rest as float32",
        data=options.data,
        data_images=len(data),
        images_seen=state["step"] * options.batch + (before.images_seen if before else 0),
        seconds=round(state["seconds"] + (before.seconds if before else 0), 1),
        seed=options.seed,
        commands=(*(before.commands if before else ()), command(options)),
        options=options,
        revision=state.get("revision", git_revision()[0]),
        dirty=state.get("dirty", git_revision()[1]),
        versions=versions(["torch", "numpy", "PIL", "safetensors"]),
        score=score_file(spec, path, options),
    )
    path.with_suffix(".json").write_bytes(encode(manifest))
    return path


def publish(weights: Path, folder: Path = SHIPPED) -> Path:
    """Copy trained weights and their manifest to where shipped checkpoints lie.

    They are named ``<model>[-<width>]-<data set>``.

    Returns:
        The copied weights.

    Raises:
        BadCheckpoint: no manifest, or one of other weights.
    """
    manifest = read_manifest(weights)
    if manifest.sha256 != sha256_file(weights):
        raise BadCheckpoint(f"{weights} is not what its manifest says: train again")
    width = manifest.model_options.get("width", 1.0)
    parts = [manifest.model, *([] if width == 1.0 else [str(width)]), manifest.data.split(":")[0]]
    target = folder / ("-".join(parts) + ".safetensors")
    shutil.copyfile(weights, target)
    shutil.copyfile(weights.with_suffix(".json"), target.with_suffix(".json"))
    return target


def _manifest_before(options: TrainOptions) -> WeightsManifest | None:
    """The manifest of the weights that the training started from, where there is one."""
    if options.start_from is None:
        return None
    start = Path(options.start_from)
    return read_manifest(start) if start.with_suffix(".json").is_file() else None


def score_file(spec: ModelSpec, path: Path, options: TrainOptions) -> Score | None:
    """Score the weights as they are stored; None where the options ask for none."""
    if options.evaluate == 0:
        return None
    torch.set_num_threads(options.threads)
    network = spec.build()
    load_weights(network, path)
    data = open_dataset(options.evaluate_data, limit=options.evaluate)
    return score(network, spec, data, device=options.device)


def read_manifest(path: Path) -> WeightsManifest:
    """The manifest beside the weights ``path``.

    Raises:
        BadCheckpoint: missing, or not a manifest.
    """
    beside = path.with_suffix(".json")
    try:
        return msgspec.json.decode(beside.read_bytes(), type=WeightsManifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadCheckpoint(
            f"{beside} is no manifest of weights ({error}): write it with detbench train"
        ) from None
