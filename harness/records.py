"""The records that flow through detbench: frozen, keyword-only, JSON-able, units in field names.

ModelSpec ──▶ Artifact ──▶ Cell ──▶ Measurement(s) ──▶ RunRecord

Only `ModelSpec` holds something that is not data: `build`, which makes the network. Everything
else is written with `encode` and read with `decode`, which validate types and name the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import ResultsError
from harness.layer_records import LayerChoice, LayerOutput
from harness.record_base import Record as Record

SCHEMA = 1
Scalar = str | int | float | bool | None
Options = dict[str, Scalar]
State = Literal[
    "ok", "unsupported", "export-failed", "parity-failed", "timeout", "crashed", "tainted"
]
OutputKind = Literal["heads", "scored_boxes", "detections"]
"""What an artifact answers: see `harness.interfaces.ANSWERS` for the tensors of each."""
Measure = Literal["accuracy", "latency", "parity", "profile", "sustain"]
R = TypeVar("R")


class ImageSpec(Record, frozen=True, kw_only=True):
    """How a photo becomes the network's input: ``(pixel - mean) / std`` on 0..255 pixels.

    One object serves calibration, evaluation and timing.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["stretch-bilinear"] = "stretch-bilinear"


class Decoding(Record, frozen=True, kw_only=True):
    """How logits and offsets become detections (SSD, Liu et al. 2016, section 2.2).

    The named ones are in `harness.policies`; what each step does is in `harness.decode`.

    Attributes:
        policy: name of the policy that this is, or was changed from.
        score: what makes scores of logits; none where a file answers scores in their place.
        score_threshold: candidates score above it.
        shown_score: what an application shows: precision, recall and F1 are counted from it up.
        iou_threshold: overlap above which hard and linear suppression act.
        iou_epsilon: added to the union of two boxes relative to the image, as pytorch-ssd does.
        suppression: hard, or soft (Bodla et al. 2017), which lowers scores instead of dropping.
        sigma: of Gaussian soft suppression.
        candidates: most per class before suppression; None is all.
        max_per_class: most per class after suppression; None is all.
        max_detections: most over all classes; None is all.
        clip: boxes are cut to the image before suppression, after it, or never.
    """

    policy: str = "detbench"
    score: Literal["softmax", "sigmoid", "none"] = "softmax"
    center_variance: float = 0.1
    size_variance: float = 0.2
    score_threshold: float = 0.01
    shown_score: float = 0.5
    iou_threshold: float = 0.45
    iou_epsilon: float = 0.0
    suppression: Literal["hard", "soft-linear", "soft-gaussian"] = "hard"
    sigma: float = 0.5
    candidates: int | None = 200
    max_per_class: int | None = None
    max_detections: int | None = 100
    clip: Literal["before", "after", "never"] = "after"


class Source(Record, frozen=True, kw_only=True):
    """Where an architecture comes from."""

    paper: str
    repository: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One detector, ready to be built.

    Attributes:
        name: registry name.
        options: every option of the model's factory with the value in force.
        build: makes the network, an ``nn.Module`` in eval mode with random weights:
            ``(n, 3, h, w) float32 -> logits (n, priors, classes), offsets (n, priors, 4)``.
        priors: ``(priors, 4)`` float32, ``(cx, cy, w, h)`` relative to the image; cut to
            it or not, by the rule of the model's family.
        labels: class names, background first.
    """

    name: str
    options: Mapping[str, Scalar]
    build: Callable[[], Any]
    image: ImageSpec
    priors: NDArray[np.float32]
    decoding: Decoding
    labels: tuple[str, ...]
    source: Source


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output of an artifact.

    ``layout`` is ``NCHW`` or ``NHWC`` for images, ``NPC`` for (n, priors, channels), ``NP`` and
    ``N`` for (n, detections) and (n,). ``scale`` and ``zero_point`` are set when the tensor is
    quantized: ``real = scale * (q - zero_point)``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: Literal["NCHW", "NHWC", "NPC", "NP", "N"]
    scale: float | None = None
    zero_point: int | None = None


def layout_of(shape: tuple[int, ...]) -> Literal["NHWC", "NPC", "NP", "N"]:
    """The layout of a tensor by its number of axes, where nothing else tells."""
    layouts: dict[int, Literal["NHWC", "NPC", "NP", "N"]] = {1: "N", 2: "NP", 4: "NHWC"}
    return layouts.get(len(shape), "NPC")


class FileEntry(Record, frozen=True, kw_only=True):
    """One file of an artifact, beside its manifest. ``role`` says what it is for."""

    path: str
    role: Literal["model", "priors", "golden", "weights"]
    sha256: str
    size_bytes: int


class CalibrationList(Record, frozen=True, kw_only=True):
    """The images that chose the quantization ranges, by content.

    ``sha256`` are the digests of the data set, ``pixels`` those of the decoded pictures (a drawn
    scene and its PNG file have the same), ``names`` the image ids; all in the same order.
    ``preprocessing`` is the fingerprint of how they were prepared; None where it is not known.
    """

    dataset: str
    split: str
    seed: int
    sha256: tuple[str, ...]
    preprocessing: str | None = None
    names: tuple[str, ...] = ()
    pixels: tuple[str, ...] = ()


class Cost(Record, frozen=True, kw_only=True):
    """What one image costs on paper, see `harness.profile`.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
        parameters: numbers that the network was trained to.
        moved: numbers that those layers read and write, weights not counted.
    """

    macs: int
    parameters: int
    moved: int


class Artifact(Record, frozen=True, kw_only=True):
    """An exported model: the manifest of a folder that needs nothing else to be run and decoded.

    ``outputs`` are in the order of `harness.interfaces.ANSWERS` for their ``output_kind``.
    ``cost`` is the network's before its export; None where it is not known.
    ``sha256`` and ``size_bytes`` are those of the files whose role is ``model``. ``golden`` holds
    real images and what the float network answered.
    """

    model: str
    model_options: Options
    weights_sha256: str
    weights_source: str
    recipe: str
    exporter: str
    format: str
    precision: Literal["float32", "int8"]
    options: Options
    files: tuple[FileEntry, ...]
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: ImageSpec
    decoding: Decoding
    labels: tuple[str, ...]
    calibration: CalibrationList | None
    toolchain: dict[str, str]
    fingerprint: str
    created_at: str
    export_ns: int
    notes: tuple[str, ...] = ()
    output_kind: OutputKind = "heads"
    layers: tuple[LayerChoice, ...] = ()
    layer_outputs: tuple[LayerOutput, ...] = ()
    cost: Cost | None = None
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """Short name that is unique: ``model/exporter/first 12 digits of sha256``."""
        return f"{self.model}/{self.exporter}/{self.sha256[:12]}"


class Cell(Record, frozen=True, kw_only=True):
    """One planned measurement. ``threads`` is what is asked of the runtime."""

    model: str
    model_options: Options
    weights: str
    exporter: str
    export_options: Options
    runner: str
    measure: Measure
    threads: int
    batch: int = 1
    target: str = "cpu"
    dataset: str = "shapes:val"
    recipe: str = "none"

    @property
    def base_name(self) -> str:
        """Model with its options, whatever the recipe: ``etinynet_ssd_lite:width=0.35``."""
        given = ",".join(f"{key}={value}" for key, value in sorted(self.model_options.items()))
        return f"{self.model}:{given}" if given else self.model

    @property
    def model_name(self) -> str:
        """Model with its options and recipe, as shown to people."""
        return self.base_name if self.recipe == "none" else f"{self.base_name} {self.recipe}"


class Measurement(Record, frozen=True, kw_only=True):
    """One measured quantity with its raw samples and the conditions it holds under.

    ``value`` is None where the samples do not license the figure. Names are dotted:
    ``latency.inference``, ``latency.load``, ``accuracy.coco_map``, ``parity.logits.sqnr_db``,
    ``memory.peak_bytes``, ``threads.used``.
    """

    metric: str
    value: float | None
    unit: str
    samples: tuple[float, ...] = ()
    conditions: dict[str, Any] = msgspec.field(default_factory=dict)


FindingLevel = Literal["red", "amber"]


class Finding(Record, frozen=True, kw_only=True):
    """A fault of the method, see `harness.lint`: ``rule`` names it, ``where`` the rows or files.

    Red: a figure is wrong or a comparison false. Amber: it holds, but says less than it seems to.
    """

    rule: str
    level: FindingLevel
    text: str
    remedy: str
    where: tuple[str, ...] = ()


class Round(Record, frozen=True, kw_only=True):
    """One round of a timed cell as the supervisor saw it.

    Attributes:
        place: when in the round the cell had its turn, counted from 0; ``of`` so many turns.
        before, after: the machine's state, see `harness.machine_state.MachineState`.
        supervisor_cpu_ns: CPU time of the supervisor itself while the child ran.
        tainted: why this round cannot be trusted, in a sentence; None where it can.
        together: how many cells took turns in it; those have the same ``started_at``.
        turns_floor: the noise floor of cells that take turns, see `harness.paired.floor`.
    """

    started_at: str
    place: int
    of: int
    elapsed_ns: int
    supervisor_cpu_ns: int
    before: dict[str, Any]
    after: dict[str, Any]
    tainted: str | None = None
    together: int = 1
    turns_floor: float | None = None


class RunRecord(Record, frozen=True, kw_only=True):
    """What became of one cell.

    ``preprocessing`` is the fingerprint of how images were prepared; None where none were.
    ``evidence`` holds the SHA-256 of files beside the record that its figures were computed from,
    by path below the run's folder. ``digest`` is the record's own (see `harness.seal`); None in
    records that were written before there was one.
    ``findings`` are what the linter said when the record was written; a reader lints again.
    ``rounds`` are those of a timed cell, in the order they were run.
    ``emulated`` names the program where the processor that ran the model was not a real one.
    ``board`` is the machine that ran the model, as in ``machine.json``, where it was not the one of
    ``machine_id``, which sent the images to it and wrote this.
    """

    cell: Cell
    cell_id: str
    artifact_id: str | None
    artifact_sha256: str | None
    artifact_size_bytes: int | None
    machine_id: str
    git_revision: str
    git_dirty: bool
    started_at: str
    elapsed_ns: int
    versions: dict[str, str]
    measurements: tuple[Measurement, ...]
    state: State
    error: str | None = None
    log: str | None = None
    preprocessing: str | None = None
    evidence: dict[str, str] = msgspec.field(default_factory=dict)
    digest: str | None = None
    findings: tuple[Finding, ...] = ()
    rounds: tuple[Round, ...] = ()
    emulated: str | None = None
    board: dict[str, Any] | None = None
    schema: int = SCHEMA

    def measurement(self, metric: str) -> Measurement | None:
        """The measurement called ``metric``, if there is one."""
        return next((m for m in self.measurements if m.metric == metric), None)


def encode(record: Record) -> bytes:
    """Indented JSON of ``record``, stable in its key order, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(data: bytes, kind: type[R], where: Path | str) -> R:
    """Read a record of ``kind``.

    Raises:
        ResultsError: not JSON, another shape, or a schema newer than this program's.
    """
    try:
        plain = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise ResultsError(
            f"{where} is not valid JSON ({error}): delete it and run again"
        ) from None
    schema = plain.get("schema", SCHEMA) if isinstance(plain, dict) else SCHEMA
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ResultsError(
            f"{where} has schema {schema}, this program reads up to {SCHEMA}: update detbench"
        )
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ResultsError(
            f"{where} is not a {kind.__name__} ({error}): delete it and run again"
        ) from None
