"""What a plug-in can be, and the registries that hold them; recipes in `recipe_interface`.

`harness.cli` and the child process look plug-ins up by name; nothing in the core imports one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.errors import Unsupported
from harness.layer_records import LayerChoice, LayerOutput
from harness.records import (
    Artifact,
    Decoding,
    ModelSpec,
    Options,
    OutputKind,
    Scalar,
    TensorSpec,
)
from harness.registry import Registry

ModelFactory = Callable[..., ModelSpec]
"""``factory(labels, **options) -> ModelSpec``; ``labels`` has the background first."""


class Truth(NamedTuple):
    """Ground truth of one image.

    Attributes:
        boxes: ``(n, 4)`` float32, ``(xmin, ymin, xmax, ymax)`` in pixels of the original image,
            continuous coordinates (a box that covers one whole pixel has width 1).
        labels: ``(n,)`` int64 indices into the data set's labels; 0 is the background, never used.
        difficult: ``(n,)`` bool, Pascal VOC's flag.
        crowd: ``(n,)`` bool, COCO's ``iscrowd``.
        area: ``(n,)`` float64 in pixels, COCO's area of the segment, which decides what counts as
            small, medium or large; None where a data set has only boxes.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64] | None = None


class Dataset(ABC):
    """Images with ground truth, read one at a time.

    ``labelled`` is False where there is no ground truth: then `truth` is never called, ``labels``
    is the background alone, and models are only compared with their float parents. ``dropped``
    holds a sentence for each annotation that was left out when the data set was opened.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    labelled: bool = True
    dropped: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image_id(self, index: int) -> str:
        """Name of the image, unique in the data set."""

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB pixels. Raises BadImage."""

    def encoded(self, index: int) -> bytes | None:
        """The picture's file as it is stored, None where there is no file. Raises BadImage."""
        return None

    @abstractmethod
    def truth(self, index: int) -> Truth:
        """Ground truth. Raises BadAnnotation."""

    @abstractmethod
    def digest(self, index: int) -> str:
        """SHA-256 of the image's content, as hex."""


class Detections(NamedTuple):
    """Detections in one image, best score first.

    Attributes:
        boxes: ``(n, 4)`` float32, ``(xmin, ymin, xmax, ymax)`` in pixels of the original image.
        labels: ``(n,)`` int64 indices into the labels, never 0.
        scores: ``(n,)`` float32.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


class RawOutputs(NamedTuple):
    """The heads' own answers, kind ``heads``.

    Attributes:
        logits: ``(n, priors, classes)``.
        offsets: ``(n, priors, 4)``, encoded against the priors.
    """

    logits: NDArray[Any]
    offsets: NDArray[Any]


class ScoredBoxes(NamedTuple):
    """Scores and decoded boxes before suppression, kind ``scored_boxes``.

    Attributes:
        scores: ``(n, priors, classes)`` in 0..1, the background first.
        boxes: ``(n, priors, 4)`` ``(xmin, ymin, xmax, ymax)``, relative to the image, not clipped.
    """

    scores: NDArray[Any]
    boxes: NDArray[Any]


class ReadyDetections(NamedTuple):
    """Detections after suppression, kind ``detections`` (TensorFlow Object Detection's order).

    Attributes:
        boxes: ``(n, k, 4)`` ``(ymin, xmin, ymax, xmax)``, relative to the image.
        classes: ``(n, k)`` index of the class without the background: 0 is the first real class.
        scores: ``(n, k)``.
        number: ``(n,)`` how many of the k places hold a detection; the rest means nothing.
    """

    boxes: NDArray[Any]
    classes: NDArray[Any]
    scores: NDArray[Any]
    number: NDArray[Any]


Outputs: TypeAlias = tuple[NDArray[Any], ...]
"""What a session answers: arrays in the order of the artifact's output tensors, maybe quantized."""

ANSWERS: Mapping[OutputKind, Callable[..., Outputs]] = {
    "heads": RawOutputs,
    "scored_boxes": ScoredBoxes,
    "detections": ReadyDetections,
}
"""Names the arrays of an `Outputs` by the artifact's ``output_kind``."""


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What an exporter is given.

    Attributes:
        network: the ``nn.Module`` in eval mode with its weights.
        options: the exporter's options, every one with its value.
        calibration: makes a fresh pass over preprocessed float32 ``(1, 3, h, w)`` images; None
            where the exporter asks for none.
        folder: an empty folder to write the model's files to.
    """

    spec: ModelSpec
    network: Any
    options: Mapping[str, Scalar]
    calibration: Callable[[], Iterator[NDArray[np.float32]]] | None
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exporter answers: files written (relative to the folder) and how to feed them.

    ``format`` is set only where an option makes another format than the exporter's own,
    ``decoding`` only where decoding inside the file follows other rules than the model's,
    ``layers`` only where the exporter chose between kernels layer by layer, ``layer_outputs`` only
    where the file itself does not show its layers.
    """

    files: Sequence[str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    toolchain: Mapping[str, str]
    notes: tuple[str, ...] = ()
    format: str | None = None
    output_kind: OutputKind = "heads"
    decoding: Decoding | None = None
    layers: tuple[LayerChoice, ...] = ()
    layer_outputs: tuple[LayerOutput, ...] = ()


class Exporter(ABC):
    """Turns a network into a file that a runtime can load.

    Class attributes: ``name`` (the file's name), ``format`` (what runners match on), ``precision``,
    ``calibrates`` (needs images), ``modules`` (import names that must be installed), ``extra`` (the
    pip extra that installs them), ``options`` (defaults of every option), ``typical_export_s`` (a
    first guess for the estimate of a run, and which export to start first), ``on_request``
    (left out where nothing is named: it serves special networks only).
    """

    name: ClassVar[str]
    format: ClassVar[str]
    precision: ClassVar[Literal["float32", "int8"]]
    calibrates: ClassVar[bool] = False
    modules: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    options: ClassVar[Options] = {}
    typical_export_s: ClassVar[float] = 40.0
    on_request: ClassVar[bool] = False

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """Why this model cannot be exported with these options, or None. Imports nothing heavy."""
        return None

    def extra_s(self, options: Mapping[str, Scalar]) -> float:
        """Seconds that these options ask for beyond a usual export, as for a search."""
        return 0.0

    @abstractmethod
    def export(self, job: ExportJob) -> Exported:
        """Write the files. Raises ExportFailed with one sentence."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a session shall run. ``threads`` is the number of intra-op threads."""

    threads: int = 1
    target: str = "cpu"


class Operator(NamedTuple):
    """One operator of a profile.

    Attributes:
        name: as the runtime names this one.
        kind: what it computes, in the runtime's word: ``Conv``, ``aten::convolution``.
        ns: what it took in each call, in nanoseconds.
    """

    name: str
    kind: str
    ns: tuple[float, ...]


class Session(ABC):
    """An artifact loaded into a runtime. Use as a context manager.

    ``board`` is set by a session on another machine: what that one is, as in ``machine.json``, at
    least its ``id``.
    """

    versions: Mapping[str, str]
    board: Mapping[str, Any] | None = None

    @abstractmethod
    def run(self, images: NDArray[Any]) -> Outputs:
        """Run a batch laid out as the artifact's input tensor says (layout, dtype, batch first).

        Answers the arrays in the order of the artifact's outputs, named by `ANSWERS`.
        """

    def time_on_device(self, images: NDArray[Any], count: int) -> tuple[float, ...]:
        """Nanoseconds of ``count`` runs by another machine's clock; empty where it is this one."""
        return ()

    def close(self) -> None:
        """Free the runtime's memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Runner(ABC):
    """A runtime. Class attributes as an `Exporter`'s; ``formats`` are what it can load.

    ``measures_harness_only`` is set by a runner that computes nothing: its cells skip parity and
    accuracy, and their time is the harness's own. A ``remote`` one runs on another machine and
    needs a target that says which.
    """

    name: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    modules: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    measures_harness_only: ClassVar[bool] = False
    remote: ClassVar[bool] = False

    def unsupported(self, artifact_format: str, options: RunOptions) -> str | None:
        """Why this artifact format cannot be run so, or None. Imports nothing heavy."""
        if artifact_format not in self.formats:
            return f"{self.name} runs {', '.join(sorted(self.formats))}, not {artifact_format}"
        if options.target != "cpu":
            return f"{self.name} runs on target cpu, not {options.target}"
        return None

    def describe(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of a file that nobody described; a size that it leaves open is 0.

        Raises:
            Unsupported: this runtime cannot tell.
        """
        raise Unsupported(f"{self.name} cannot tell what {path} takes and answers")

    @abstractmethod
    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the artifact, whose files lie in ``folder`` and were verified.

        Called in a child process before the runtime was imported, so a thread count that is
        fixed at import (an environment variable) may be set here.
        """

    def profile(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Sequence[NDArray[Any]],
    ) -> Sequence[Operator]:
        """Time by operator in one call per image, in the order that they run.

        Raises:
            Unsupported: the runtime does not tell, which is the default.
        """
        raise Unsupported(f"{self.name} does not tell what each of its operators takes")

    def trace(
        self,
        artifact: Artifact,
        folder: Path,
        options: RunOptions,
        images: Iterable[NDArray[Any]],
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What every layer answers to each image, laid out as the artifact's input says.

        Yields:
            for each image real values ``(1, channels, height, width)`` by the layer's name in the
            network, in the order that they run, behind the activation that belongs to it.

        Raises:
            Unsupported: the runtime does not show them, which is the default.
        """
        raise Unsupported(f"{self.name} does not show what its layers answer")


MODELS: Registry[ModelFactory] = Registry("models")
EXPORTERS: Registry[type[Exporter]] = Registry("exporters")
RUNNERS: Registry[type[Runner]] = Registry("runners")
