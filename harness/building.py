"""Make an artifact: build the network, load weights, follow the recipe, export, check, publish.

Runs in a child process of its own, which may import torch and one exporter's toolchain.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import artifacts, calibration, recipes, training_images
from harness.cache import cache_dir, sha256_text
from harness.errors import ExportFailed, Unsupported
from harness.extras import require
from harness.images import Preprocessor, float_input, resize
from harness.interfaces import (
    EXPORTERS,
    MODELS,
    Exported,
    Exporter,
    ExportJob,
    RawOutputs,
)
from harness.profile import cost_of
from harness.provenance import versions
from harness.records import Artifact, CalibrationList, ModelSpec
from harness.tasks import ExportRequest, ExportTask


def build(task: ExportTask) -> Artifact:
    """Export as asked and publish the artifact in ``task.folder``.

    Raises:
        Unsupported: this model cannot be exported so.
        MissingExtra: the toolchain is not installed.
        ExportFailed: the toolchain refused.
        BadCheckpoint: the weights do not fit.
    """
    request = task.request
    started = time.perf_counter_ns()
    exporter = EXPORTERS.get(request.exporter.name)()
    for module in exporter.modules:
        require(module, extra=exporter.extra)
    spec = model_spec(request)
    if reason := exporter.unsupported(spec, request.exporter.options):
        raise Unsupported(reason)
    network = load_network(spec, Path(request.weights_path))
    picked = calibration.pick(request.calibration)
    prepare = Preprocessor(spec.image, float_input(spec.image))

    def passes() -> Iterator[NDArray[np.float32]]:
        return (prepare(picked.data.image(index)) for index in picked.calibrating)

    chain = recipes.parse(request.recipe)
    network, done = chain.apply(spec, network, _supplies(request, passes))
    golden = np.stack([resize(picked.data.image(index), spec.image) for index in picked.golden])
    folder = Path(task.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staging-"))
    try:
        done += _pack(network, staging) if chain.steps else ()
        answers = artifacts.Golden(golden, reference_outputs(network, spec, golden))
        job = ExportJob(
            spec=spec,
            network=network,
            options=request.exporter.options,
            calibration=passes if exporter.calibrates else None,
            folder=staging,
        )
        exported = _export(exporter, job)
        artifacts.write_extras(staging, spec.priors, answers)
        listed = (
            calibration.listing(request.calibration, picked, prepare.fingerprint)
            if exporter.calibrates or "calibration" in chain.needs
            else None
        )
        elapsed_ns = time.perf_counter_ns() - started
        artifact = _manifest(task, exporter, spec, exported, staging, listed, done, elapsed_ns)
        artifacts.publish(staging, artifact, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return artifact


def _supplies(
    request: ExportRequest, passes: Callable[[], Iterator[NDArray[np.float32]]]
) -> recipes.Supplies:
    """What the recipes of an export may draw on."""
    training = None
    identity = [calibration.digest(request.calibration)]
    if request.training:
        training = training_images.given(request.training)
        identity += [training_images.digest(request.training), str(training.match_iou)]
    return recipes.Supplies(
        calibration=passes,
        training=training,
        kept=cache_dir("recipes"),
        identity=sha256_text(identity),
    )


def _pack(network: Any, folder: Path) -> tuple[str, ...]:
    """Write the network's weights compressed, where pruning or clustering makes them smaller."""
    from models._packed import write_packed

    packed = write_packed(network, folder / artifacts.WEIGHTS)
    if packed is None:
        return ()
    return (
        f"weights compressed without loss: {packed.size_bytes / 1e6:.2f} MB in {artifacts.WEIGHTS}"
        f" for {packed.plain_bytes / 1e6:.2f} MB",
    )


def model_spec(request: ExportRequest) -> ModelSpec:
    """The model asked for, with the classes of its weights."""
    return MODELS.get(request.model.name)(request.labels, **request.model.options)


def load_network(spec: ModelSpec, weights: Path) -> Any:
    """The ``nn.Module`` of ``spec`` in eval mode with a file's weights. Raises BadCheckpoint."""
    from models._checkpoint import load_weights

    network = spec.build()
    load_weights(network, weights)
    return network.eval()


def reference_outputs(network: Any, spec: ModelSpec, images: NDArray[np.uint8]) -> RawOutputs:
    """What the float network answers to images of its input size, in plain torch."""
    torch = require("torch", extra="torch")
    prepare = Preprocessor(spec.image, float_input(spec.image))
    logits, offsets = [], []
    with torch.inference_mode():
        for image in images:
            answer = network(torch.from_numpy(prepare(image)))
            logits.append(answer[0].numpy())
            offsets.append(answer[1].numpy())
    return RawOutputs(np.concatenate(logits), np.concatenate(offsets))


def _export(exporter: Exporter, job: ExportJob) -> Exported:
    exported = exporter.export(job)
    missing = [name for name in exported.files if not (job.folder / name).is_file()]
    if missing or not exported.files:
        raise ExportFailed(f"{exporter.name} wrote no {', '.join(missing) or 'file'}")
    return exported


def _manifest(
    task: ExportTask,
    exporter: Exporter,
    spec: ModelSpec,
    exported: Exported,
    folder: Path,
    listed: CalibrationList | None,
    done: tuple[str, ...],
    elapsed_ns: int,
) -> Artifact:
    request = task.request
    files = artifacts.entries(folder, exported.files)
    return Artifact(
        model=request.model.name,
        model_options=dict(spec.options),
        weights_sha256=request.weights_sha256,
        weights_source=request.weights_source,
        recipe=request.recipe,
        exporter=exporter.name,
        format=exported.format or exporter.format,
        precision=exporter.precision,
        options=request.exporter.options,
        files=files,
        sha256=artifacts.model_digest(files),
        size_bytes=sum(entry.size_bytes for entry in files if entry.role == "model"),
        inputs=exported.inputs,
        outputs=exported.outputs,
        image=spec.image,
        decoding=exported.decoding or spec.decoding,
        labels=spec.labels,
        calibration=listed,
        toolchain={**versions(exporter.modules), **exported.toolchain},
        fingerprint=task.fingerprint,
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        export_ns=elapsed_ns,
        notes=(*done, *exported.notes),
        output_kind=exported.output_kind,
        layers=exported.layers,
        layer_outputs=exported.layer_outputs,
        cost=cost_of(spec),
    )
