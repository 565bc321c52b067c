"""What a training needs to go on after it was stopped, and where it is kept."""

from __future__ import annotations

import csv
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import nn

from harness.errors import BadCheckpoint, BadConfig
from harness.provenance import git_revision
from harness.records import encode
from models.training.options import TrainOptions

STATE = "last.pt"
FREE = (
    "out",
    "cache",
    "resume",
    "stop_after",
    "save_seconds",
    "threads",
    "workers",
    "device",
    "evaluate",
    "evaluate_data",
)
"""Options that may differ when a training is resumed: they do not change what is learned."""


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


class Progress(NamedTuple):
    """How far a training is. ``seconds`` is time spent training, over all its processes."""

    step: int
    seconds: float


def save(
    path: Path,
    progress: Progress,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
) -> None:
    """Write the state so that a kill at any moment leaves the old or the new one, whole."""
    revision, dirty = git_revision()
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "step": progress.step,
            "seconds": progress.seconds,
            "network": network.state_dict(),
            "average": average.values,
            "optimizer": optimizer.state_dict(),
            "options": encode(options).decode(),
            "revision": revision,
            "dirty": dirty,
        },
        partial,
    )
    os.replace(partial, path)


def restore(
    path: Path,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
) -> Progress:
    """Load what `save` wrote.

    Raises:
        BadCheckpoint: unreadable.
        BadConfig: it was trained with other options.
    """
    state = read(path)
    check_same(path, state["options"], options)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    average.values = state["average"]
    return Progress(state["step"], state["seconds"])


def read(path: Path) -> dict[str, Any]:
    """The plain content of a training's ``last.pt``.

    Raises:
        BadCheckpoint: unreadable.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadCheckpoint(
            f"training state {path} cannot be read ({error}): delete it to start again"
        ) from None
    return state


def check_same(path: Path, stored: str, options: TrainOptions) -> None:
    """Refuse to resume with options that change what is learned.

    Raises:
        BadConfig: naming the first option that differs.
    """
    old, new = msgspec.json.decode(stored), msgspec.json.decode(encode(options))
    for key in new:
        if key not in FREE and old.get(key) != new[key]:
            raise BadConfig(
                f"{path} was trained with {key} {old.get(key)!r}, not {new[key]!r}:"
                " give the same options, or another out folder"
            )


class Log:
    """``log.csv``: one row per step; rows after the resumed step are dropped first."""

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

    def __init__(self, path: Path, *, after: int) -> None:
        kept = []
        if after and path.is_file():
            with path.open(newline="", encoding="utf-8") as old:
                kept = [row for row in csv.reader(old) if row[0].isdigit() and int(row[0]) <= after]
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.COLUMNS)
        self._writer.writerows(kept)

    def row(self, **values: float) -> None:
        """Write one step's numbers."""
        self._writer.writerow([f"{values[name]:.6g}" for name in self.COLUMNS])

    def flush(self) -> None:
        """Hand what was written to the system, so that a kill does not lose it."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
