"""What a recipe is: a change of the network before its export, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.records import ModelSpec, Options, Scalar
from harness.registry import Registry


class TrainingImages(NamedTuple):
    """The images that a recipe may train on: a data set as `open_dataset` takes it, and how many
    of its first images; None is all. None of them is scored. A prior learns an object from an IoU
    of ``match_iou`` up.
    """

    data: str
    images: int | None
    match_iou: float


Need: TypeAlias = Literal["calibration", "training"]
"""Images that a recipe can ask for."""


@dataclass(frozen=True, kw_only=True)
class RecipeJob:
    """What a recipe is given: the network, which it may change, and all of its own options.

    Attributes:
        network: the ``nn.Module`` in eval mode, as the recipes before left it.
        calibration: makes a fresh pass over preprocessed float32 ``(1, 3, h, w)`` images, the same
            that calibrate exporters; None where the recipe does not need them.
        training: what to train on; None where the recipe does not need it.
        folder: where a costly recipe keeps what it needs to go on after it was killed; it is the
            same whenever all that the result depends on is; None for a recipe that is not costly.
    """

    spec: ModelSpec
    network: Any
    options: Mapping[str, Scalar]
    calibration: Callable[[], Iterator[NDArray[np.float32]]] | None = None
    training: TrainingImages | None = None
    folder: Path | None = None


class Recipe(ABC):
    """Changes a network before it is exported, and says what it did.

    Class attributes: ``name`` (the file's name in ``models/recipes``), ``options`` (defaults), and
    ``positional``, the option that a bare value sets: ``prune:0.8``. ``costly`` is set where it
    takes minutes although it does not train. Like one that trains it then changes values in the
    network's state dict and nothing else, so that the result can be kept and used by the next
    export. ``folds`` is set where it folds batch norms into convolutions, ``final`` where nothing
    can follow it in a chain; ``spoils`` names the recipes that it would undo if it came after them.
    The file imports torch inside functions only, because plans are made without it.
    """

    name: ClassVar[str]
    options: ClassVar[Options] = {}
    positional: ClassVar[str | None] = None
    costly: ClassVar[bool] = False
    folds: ClassVar[bool] = False
    final: ClassVar[bool] = False
    spoils: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def check(self, options: Mapping[str, Scalar]) -> None:
        """Raise BadConfig where these options cannot be followed."""

    def resolved(self, options: Mapping[str, Scalar]) -> Options:
        """The options with whatever else they depend on, such as the hash of a file they name."""
        return dict(options)

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        """Which images it asks for with these options."""
        return frozenset()

    def unsupported(
        self, network: Any, options: Mapping[str, Scalar], *, folded: bool
    ) -> str | None:
        """Why it does not apply to this network, or None; asked before any recipe is followed.

        Args:
            folded: a recipe before it in the chain folds batch norms.
        """
        return None

    @abstractmethod
    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        """The changed network in eval mode, and sentences for the manifest."""


RECIPES: Registry[type[Recipe]] = Registry("recipes", folder="models/recipes")
