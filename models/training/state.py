"""What a training needs to go on after it was stopped, and where it is kept."""

from __future__ import annotations

import csv
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from harness.errors import BadCheckpoint, BadConfig
from harness.provenance import git_revision
from harness.records import Record, encode
from models.training.options import TrainOptions

STATE, BEST = "last.pt", "best.pt"
FREE = (
    "out",
    "cache",
    "resume",
    "stop_after",
    "save_seconds",
    "threads",
    "workers",
    "device",
    "images_in",
    "patience",
)
"""Options that may differ when a training is resumed: they do not change what is learned."""
SCORED = ("evaluate", "evaluate_data")
"""The same, where nothing is validated on the way, so that they decide about no weights."""


class Average:
    """Exponential moving average of a network's weights and statistics.

    The decay grows with the step, so that the random start is forgotten quickly.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {key: value.clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards ``network`` after optimizer step number ``step``, counted from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        new = network.state_dict()
        floats = [key for key, value in new.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.values[k] for k in floats], [new[k] for k in floats], weight)
        for key in new.keys() - set(floats):
            self.values[key].copy_(new[key])

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over saved values, on the device where the average is."""
        for key, value in values.items():
            self.values[key].copy_(value)


class Validation(Record, frozen=True, kw_only=True):
    """What the weights were worth on the held-out data after ``images`` images; ``map`` 0..1."""

    images: int
    loss: float
    map: float


class Progress(Record, frozen=True, kw_only=True):
    """How far a training is.

    Attributes:
        seconds: spent training and validating, over all its processes.
        validations: in their order.
        notes: what the weights started from.
    """

    step: int = 0
    seconds: float = 0.0
    validations: tuple[Validation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Validation | None:
        """The first validation with the highest mAP."""
        return max(self.validations, key=lambda each: each.map, default=None)

    def out_of_patience(self, patience: int) -> bool:
        """Whether the last ``patience`` validations were no better than one before them."""
        if not patience or self.best is None:
            return False
        return len(self.validations) - 1 - self.validations.index(self.best) >= patience


def save(
    path: Path,
    progress: Progress,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    labels: tuple[str, ...],
) -> None:
    """Write the state so that a kill at any moment leaves the old or the new one, whole."""
    revision, dirty = git_revision()
    write(
        path,
        {
            "step": progress.step,
            "seconds": progress.seconds,
            "progress": encode(progress).decode(),
            "network": network.state_dict(),
            "average": average.values,
            "optimizer": optimizer.state_dict(),
            "options": encode(options).decode(),
            "labels": list(labels),
            "revision": revision,
            "dirty": dirty,
        },
    )


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Save with torch, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(dict(content), partial)
    os.replace(partial, path)


def restore(
    path: Path,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    labels: tuple[str, ...],
) -> Progress:
    """Load what `save` wrote.

    Raises:
        BadCheckpoint: unreadable.
        BadConfig: it was trained with other options.
    """
    state = read(path)
    check_same(path, state["options"], options)
    if tuple(state["labels"]) != labels:
        raise BadConfig(
            f"{path} learns the classes {', '.join(state['labels'][1:])}, the data has"
            f" {', '.join(labels[1:])}: give the same data, or another out folder"
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    average.load(state["average"])
    return progress_in(state)


def progress_in(state: Mapping[str, Any]) -> Progress:
    """How far the training was whose state this is."""
    return msgspec.json.decode(state["progress"], type=Progress)


def read(path: Path) -> dict[str, Any]:
    """The plain content of a training's ``last.pt``, or the weights in its ``best.pt``.

    Raises:
        BadCheckpoint: unreadable, or written by a version that kept other things.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadCheckpoint(
            f"training state {path} cannot be read ({error}): delete it to start again"
        ) from None
    if path.name == STATE and not {"progress", "labels"} <= state.keys():
        raise BadCheckpoint(
            f"training state {path} is of an older detbench: delete it to start again"
        )
    return state


def check_same(path: Path, stored: str, options: TrainOptions) -> None:
    """Refuse to resume with options that change what is learned.

    Raises:
        BadConfig: naming every option that differs.
    """
    old, new = msgspec.json.decode(stored), msgspec.json.decode(encode(options))
    free = FREE if options.validate_every else (*FREE, *SCORED)
    differ = [
        f"{key} {old.get(key)!r}, not {new[key]!r}"
        for key in new
        if key not in free and old.get(key) != new[key]
    ]
    if differ:
        raise BadConfig(
            f"{path} was trained with {'; with '.join(differ)}: give the same options, or another"
            " out folder"
        )


class Log:
    """``log.csv``: one row per step; rows after the resumed step are dropped first.

    Without a path the rows are only kept in memory, as ``rows``.
    """

    COLUMNS = (
        "step",
        "images",
        "size",
        "loss",
        "classes",
        "boxes",
        "learning_rate",
        "images_per_s",
    )

    def __init__(self, path: Path | None, *, after: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._file = None
        if path is None:
            return
        kept = []
        if after and path.is_file():
            with path.open(newline="", encoding="utf-8") as old:
                kept = [row for row in csv.reader(old) if row[0].isdigit() and int(row[0]) <= after]
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.COLUMNS)
        self._writer.writerows(kept)

    def row(self, **values: float) -> None:
        """Keep one step's numbers."""
        self.rows.append(values)
        if self._file is not None:
            self._writer.writerow([f"{values[name]:.6g}" for name in self.COLUMNS])

    def flush(self) -> None:
        """Hand what was written to the system, so that a kill does not lose it."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
