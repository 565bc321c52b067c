"""What the supervisor hands to a child process, and what comes back: JSON files, nothing else."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.config import Accuracy, Calibration, Training
from harness.records import Cell, Measurement, Record, Round, State
from harness.requests import Request


class ExportRequest(Record, frozen=True, kw_only=True):
    """Everything that an export depends on. Options are complete.

    ``training`` is what the recipes train on; None where none of them trains.
    """

    model: Request
    weights_path: str
    weights_sha256: str
    weights_source: str
    labels: tuple[str, ...]
    exporter: Request
    calibration: Calibration
    recipe: str = "none"
    training: Training | None = None


class ExportTask(Record, frozen=True, kw_only=True, tag="export"):
    """Export one model; the artifact appears whole in ``folder``."""

    request: ExportRequest
    fingerprint: str
    folder: str
    plugins: tuple[str, ...] = ()


class Part(Record, frozen=True, kw_only=True):
    """What one shard found: its file, and its counts and times."""

    detections: str
    measurements: tuple[Measurement, ...]


class MeasureTask(Record, frozen=True, kw_only=True, tag="measure"):
    """Measure one cell, one round of it when latency is timed in several, or a shard of its images.

    ``scored`` is the file of detections that the accuracy cell of the same artifact and runner
    left, against which a latency cell holds its own. A shard (``shard`` of ``shards``) writes what
    it found to ``detections`` and is not scored. A task with ``parts`` runs no model: it joins what
    the shards wrote, in that order, and scores it. ``pace_ns`` asks for timing at that period
    too, ``sustain_s`` is how long a sustained run lasts, ``cpus`` are the logical cores to stay on.
    Without ``strict`` an artifact that misses parity is measured all the same.
    """

    cell: Cell
    folder: str
    images: int
    tier: str
    round: int
    rounds: int
    seed: int
    detections: str | None = None
    reference: str | None = None
    scored: str | None = None
    pace_ns: int | None = None
    sustain_s: float = 0.0
    cpus: tuple[int, ...] | None = None
    audit: bool = False
    strict: bool = True
    plugins: tuple[str, ...] = ()
    skip_bad: bool = False
    accuracy: Accuracy = Accuracy()
    decoding: str | None = None
    shard: int | None = None
    shards: int = 1
    parts: tuple[Part, ...] = ()


class ChildResult(Record, frozen=True, kw_only=True):
    """What a child says before it exits. No result file means that it died."""

    state: State
    error: str | None = None
    artifact_id: str | None = None
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    elapsed_ns: int = 0
    preprocessing: str | None = None
    round: Round | None = None
    emulated: str | None = None
    board: dict[str, Any] | None = None
