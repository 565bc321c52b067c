"""From a training's last state to a checkpoint that can be shipped: weights and their manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import torch

from harness.cache import sha256_file
from harness.datasets import open_dataset
from harness.errors import BadCheckpoint, BadConfig
from harness.interfaces import MODELS
from harness.provenance import git_revision, versions
from harness.records import ModelSpec, Options, Record, encode
from harness.weights import SHIPPED
from models._checkpoint import load_weights, save_weights
from models.training.batches import open_feed
from models.training.options import TrainOptions
from models.training.scoring import Score, open_held_out
from models.training.settings import command
from models.training.settle import settle
from models.training.starting import find_start
from models.training.state import BEST, STATE, Validation, progress_in, read

WEIGHTS, LABELS = "weights.safetensors", "labels.txt"


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
        start: what the weights started from, and what started random.
        best: the validation that chose these weights; None where the last ones were taken.
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
    start: tuple[str, ...] = ()
    best: Validation | None = None
    validations: tuple[Validation, ...] = ()
    schema: int = 1


def finish(options: TrainOptions) -> Path:
    """Write and score the weights that the training in ``options.out`` answers.

    Those are the best validated ones, else the averaged ones of the last state, settled.

    Works on a finished training and, for a snapshot, on one that still runs.

    Returns:
        The weights; their manifest and the list of their classes lie beside them.

    Raises:
        BadCheckpoint: there is no state.
    """
    out = Path(str(options.out))
    if not (out / STATE).is_file():
        raise BadCheckpoint(f"{out} has no training state {STATE}: train first")
    state = read(out / STATE)
    progress = progress_in(state)
    spec = MODELS.get(options.model)(tuple(state["labels"]), **options.model_options)
    before = _manifest_before(spec, options)
    network = spec.build()
    if progress.best is None:
        network.load_state_dict(state["average"])
        settle(network.to(options.device), spec, open_feed(spec, options), options)
    else:
        network.load_state_dict(read(out / BEST))
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
        data_images=len(open_dataset(options.data, limit=options.data_images)),
        images_seen=progress.step * options.batch + (before.images_seen if before else 0),
        seconds=round(progress.seconds + (before.seconds if before else 0), 1),
        seed=options.seed,
        commands=(*(before.commands if before else ()), command(options)),
        options=options,
        revision=state.get("revision", git_revision()[0]),
        dirty=state.get("dirty", git_revision()[1]),
        versions=versions(["torch", "numpy", "PIL", "safetensors"]),
        score=score_file(spec, path, options),
        start=progress.notes,
        best=progress.best,
        validations=progress.validations,
    )
    path.with_suffix(".json").write_bytes(encode(manifest))
    (out / LABELS).write_text("".join(f"{label}\n" for label in spec.labels), encoding="utf-8")
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


def _manifest_before(spec: ModelSpec, options: TrainOptions) -> WeightsManifest | None:
    """The manifest of the weights that the training started from, where a training wrote one."""
    if options.start_from is None:
        return None
    try:
        return read_manifest(find_start(spec, options.start_from).path)
    except (BadCheckpoint, BadConfig):
        return None  # gone since, or written by something else than a training


def score_file(spec: ModelSpec, path: Path, options: TrainOptions) -> Score | None:
    """Score the weights as they are stored; None where the options ask for none."""
    held_out = open_held_out(options, spec)
    if held_out is None:
        return None
    torch.set_num_threads(options.threads)
    network = spec.build()
    load_weights(network, path)
    return held_out.score(network, options)


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
