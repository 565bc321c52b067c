"""A made-up run for the tests of reports: cells in every state, samples from fixed seeds."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from harness.records import (
    Artifact,
    CalibrationList,
    Cell,
    Decoding,
    FileEntry,
    ImageSpec,
    Measurement,
    Options,
    RunRecord,
    State,
    TensorSpec,
)
from harness.report import RunData

EVIL = "<script>alert('pwned')</script>"
MB2, ETINY = "mb2_ssd_lite", "etinynet_ssd_lite"
OPTIONS: dict[str, Options] = {MB2: {}, ETINY: {"width": 0.35}}
PAIRS = (
    ("torch_float", "torch_cpu", "float32"),
    ("onnx_float", "ort_cpu", "float32"),
    ("onnx_int8", "ort_cpu", "int8"),
    ("tflite_float", "litert_cpu", "float32"),
    ("tflite_int8", "litert_cpu", "int8"),
    ("torch_int8", "torch_cpu", "int8"),
    ("tvm_dense", "tvm_cpu", "float32"),
)
SPEED = {  # ms of one thread for mb2_ssd_lite, gain of a second thread
    "torch_float": (61.0, 1.55),
    "onnx_float": (17.6, 1.8),
    "onnx_int8": (7.1, 1.7),
    "tflite_float": (21.5, 1.7),
    "tflite_int8": (13.2, 1.6),
    "torch_int8": (30.4, 1.25),
    "tvm_dense": (48.0, 1.9),
}
LOSS = {"onnx_int8": -0.004, "tflite_int8": -0.021, "torch_int8": -0.002}
SIZE = {"float32": 13_400_000, "int8": 3_900_000}
ENDS: dict[tuple[str, str, str, int], tuple[State, str, str | None]] = {
    (MB2, "tvm_dense", "accuracy", 1): ("unsupported", "tvm is not installed", None),
    (MB2, "tvm_dense", "latency", 1): ("unsupported", "tvm is not installed", None),
    (MB2, "tvm_dense", "latency", 2): ("unsupported", "tvm is not installed", None),
    (ETINY, "torch_int8", "accuracy", 1): ("export-failed", f"gcc refused {EVIL}", f"{EVIL}\ngcc"),
    (ETINY, "torch_int8", "latency", 1): ("export-failed", f"gcc refused {EVIL}", f"{EVIL}\ngcc"),
    (ETINY, "torch_int8", "latency", 2): ("export-failed", f"gcc refused {EVIL}", f"{EVIL}\ngcc"),
    (MB2, "torch_int8", "accuracy", 1): (
        "parity-failed",
        "logits have an SQNR of 4.4 dB (at least 15 dB) against the float network",
        None,
    ),
    (MB2, "torch_int8", "latency", 1): ("parity-failed", "logits have an SQNR of 4.4 dB", None),
    (MB2, "torch_int8", "latency", 2): ("parity-failed", "logits have an SQNR of 4.4 dB", None),
    (MB2, "tflite_float", "latency", 2): ("timeout", "stopped after 600 s, its limit", "still 42"),
    (ETINY, "tvm_dense", "latency", 2): (
        "crashed",
        "killed by SIGSEGV: see the log",
        "Fatal Python error: Segmentation fault\nThread 0x00007f (most recent call first):",
    ),
    (ETINY, "tflite_float", "latency", 1): ("tainted", "other processes used 80 % of a core", None),
}
OK: tuple[State, None, None] = ("ok", None, None)
NOT_RUN = (ETINY, "tvm_dense", "latency", 1)


def made_up_run(
    *,
    models: Sequence[str] = (MB2, ETINY),
    machine: str = "bench-a",
    tier: str = "rapid",
    noise_floor: float | None = 0.012,
    samples: int = 64,
    slower: float = 1.0,
) -> RunData:
    """42 planned cells with two models: 30 measured (one tainted), 11 failed, 1 not run."""
    records: list[RunRecord] = []
    plan: list[dict[str, Any]] = []
    artifacts: dict[str, Artifact] = {}
    for model in models:
        for exporter, runner, precision in PAIRS:
            artifact = _artifact(model, exporter, "int8" if precision == "int8" else "float32")
            for cell in _cells(model, exporter, runner):
                ends = (cell.model, exporter, cell.measure, cell.threads)
                cell_id = f"{model}-{exporter}-{cell.measure}-t{cell.threads}"
                plan.append({"id": cell_id, "cell": msgspec.to_builtins(cell)})
                if ends == NOT_RUN:
                    continue
                state, error, log = ENDS.get(ends, OK)
                built = state not in ("unsupported", "export-failed")
                records.append(
                    RunRecord(
                        cell=cell,
                        cell_id=cell_id,
                        artifact_id=artifact.id if built else None,
                        artifact_sha256=artifact.sha256 if built else None,
                        artifact_size_bytes=artifact.size_bytes if built else None,
                        machine_id=machine,
                        git_revision="0123456789abcdef0123456789abcdef01234567",
                        git_dirty=False,
                        started_at="2026-11-20T19:00:00+00:00",
                        elapsed_ns=8_000_000_000,
                        versions={"onnxruntime": "1.31.1"} if runner == "ort_cpu" else {},
                        measurements=tuple(_measurements(cell, state, samples, slower)),
                        state=state,
                        error=error,
                        log=log,
                    )
                )
                if built:
                    artifacts[artifact.id] = artifact
    run = {
        "name": "default",
        "command": ["detbench", "run", "--models", ",".join(models)],
        "started_at": "2026-11-20T18:57:00+00:00",
        "git_revision": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "tier": tier,
        "rounds": 2,
        "seed": 0,
        "images": 300,
        "plan": plan,
        "noise_floor": noise_floor,
    }
    facts = {
        "id": machine,
        "cpu": "Example CPU @ 3.0 GHz",
        "cores": 2,
        "memory_bytes": 25_276_502_016,
        "caches_bytes": {"L1d": 32_768, "L2": 1_048_576},
        "governor": None,
        "turbo": False,
    }
    return RunData(machine=facts, run=run, records=records, artifacts=artifacts)


def _cells(model: str, exporter: str, runner: str) -> Iterator[Cell]:
    asked: list[tuple[Literal["accuracy", "latency"], int]] = [
        ("accuracy", 1),
        ("latency", 1),
        ("latency", 2),
    ]
    for measure, threads in asked:
        yield Cell(
            model=ETINY if model.startswith("etiny") else model,
            model_options=OPTIONS.get(model, {}),
            weights="shipped",
            exporter=exporter,
            export_options={"per_channel": True} if exporter.endswith("int8") else {},
            runner=runner,
            measure=measure,
            threads=threads,
        )


def _measurements(cell: Cell, state: State, samples: int, slower: float) -> Iterator[Measurement]:
    if state in ("ok", "tainted", "parity-failed"):
        yield from _parity(cell, failed=state == "parity-failed")
    if state not in ("ok", "tainted"):
        return
    if cell.measure == "accuracy":
        yield from _scores(cell)
    else:
        yield from _latency(cell, samples, slower)


def _parity(cell: Cell, *, failed: bool) -> Iterator[Measurement]:
    sqnr = 4.4 if failed else 33.1 if cell.exporter.endswith("int8") else 112.0
    for head, extra in (("logits", 0.0), ("offsets", -4.5)):
        figures = {"sqnr_db": sqnr + extra, "max_abs": 12.0 / sqnr, "cosine": 1 - 0.01 / sqnr**2}
        for name, value in figures.items():
            yield Measurement(metric=f"parity.{head}.{name}", value=value, unit="1")
    counts = {"matched": 40.0, "lost": 0.0, "new": 1.0, "moved": 2.0, "rescored": 0.0}
    for name, value in counts.items():
        yield Measurement(metric=f"parity.detections.{name}", value=value, unit="1")


def _scores(cell: Cell) -> Iterator[Measurement]:
    top = 0.612 if cell.model == MB2 else 0.447
    change = LOSS.get(cell.exporter, 0.0)
    shares = {"voc07_map": 1.36, "voc12_map": 1.4, "coco_map": 1.0, "coco_map50": 1.41}
    for name, share in shares.items():
        value = (top + change) * share
        where: dict[str, Any] = {"dataset": "shapes", "split": "val", "images": 300}
        yield Measurement(
            metric=f"accuracy.{name}",
            value=value,
            unit="1",
            conditions={**where, "ci95": [value - 0.014, value + 0.013], "per_class": {}},
        )
        if cell.exporter != "torch_float":
            spread = [change - 0.005, change + 0.004] if change else [0.0, 0.0]
            yield Measurement(
                metric=f"accuracy.{name}_change",
                value=change,
                unit="1",
                conditions={**where, "ci95": spread, "verdict": "no drop larger than 0.9 AP"},
            )
    calibrated = 3.0 if (cell.model, cell.exporter) == (ETINY, "tflite_int8") else 0.0
    yield Measurement(metric="accuracy.calibration_overlap", value=calibrated, unit="images")
    inference = SPEED[cell.exporter][0] * 300 * 1e6
    shares = {"image": 0.02, "preprocess": 0.05, "inference": 1.0, "postprocess": 0.08}
    for stage, share in shares.items():
        yield Measurement(metric=f"time.{stage}", value=inference * share, unit="ns")


def _latency(cell: Cell, samples: int, slower: float) -> Iterator[Measurement]:
    one, gain = SPEED[cell.exporter]
    ms = slower * one / (gain if cell.threads == 2 else 1.0)
    ms *= 1.0 if cell.model == MB2 else 0.24
    spread = 0.04 if cell.exporter == "torch_float" else 0.008
    few = (cell.model, cell.exporter, cell.threads) == (MB2, "tflite_int8", 1)
    number = 20 if few else samples
    for stage, mean in (
        ("inference", ms),
        ("inference_in_pipeline", ms * 1.03),
        ("preprocess", 0.9),
        ("postprocess", 1.4),
        ("end_to_end", ms * 1.03 + 2.3),
    ):
        drawn = _samples(cell, stage, mean, spread, number)
        yield Measurement(
            metric=f"latency.{stage}",
            value=float(np.median(drawn)),
            unit="ns",
            samples=drawn,
            conditions={
                "tier": "rapid",
                "rounds": [number // 2, number - number // 2],
                "seed": 0,
                "statistic": "p50",
            },
        )
    loads = (31e6 * slower, 29.5e6 * slower)
    yield Measurement(metric="latency.load", value=loads[0], unit="ns", samples=loads)
    yield Measurement(metric="latency.load_cold", value=2 * loads[0], unit="ns")
    yield Measurement(metric="latency.first", value=1.9e6 * ms, unit="ns")
    warm = _samples(cell, "warmup", ms, 0.1, 8)
    yield Measurement(metric="latency.warmup_inference", value=None, unit="ns", samples=warm)
    used = 1 if cell.exporter == "torch_int8" else cell.threads
    yield Measurement(metric="threads.used", value=float(used), unit="threads")
    yield Measurement(metric="memory.peak_bytes", value=310e6, unit="B", samples=(310e6, 312e6))
    base = Measurement(metric="memory.baseline_bytes", value=60e6, unit="B", samples=(60e6, 60.5e6))
    yield base


def _samples(cell: Cell, stage: str, ms: float, spread: float, number: int) -> tuple[float, ...]:
    """Whole nanoseconds around ``ms``; the rounds of a cell are alike."""
    seed = zlib.crc32(f"{cell.model}{cell.exporter}{cell.threads}{stage}".encode())
    noise = np.random.Generator(np.random.PCG64(seed)).normal(1.0, spread, number)
    return tuple(float(round(value)) for value in ms * 1e6 * noise)


def _artifact(model: str, exporter: str, precision: Literal["float32", "int8"]) -> Artifact:
    digest = hashlib.sha256(f"{model}{exporter}".encode()).hexdigest()
    size = int(SIZE[precision] * (1.0 if model == MB2 else 0.16)) + len(exporter) * 1000
    priors = 3000 if model == MB2 else 1600
    outputs = tuple(
        TensorSpec(name=name, dtype="float32", shape=(1, priors, width), layout="NPC")
        for name, width in (("logits", 11), ("offsets", 4))
    )
    calibration = CalibrationList(
        dataset="shapes",
        split="calibration",
        seed=0,
        sha256=tuple(hashlib.sha256(bytes([n])).hexdigest() for n in range(100)),
    )
    return Artifact(
        model=model,
        model_options=OPTIONS.get(model, {}),
        weights_sha256="ab" * 32,
        weights_source="shipped",
        recipe="none",
        exporter=exporter,
        format=exporter.partition("_")[0],
        precision=precision,
        options={"per_channel": True} if precision == "int8" else {},
        files=(FileEntry(path="model.bin", role="model", sha256=digest, size_bytes=size),),
        sha256=digest,
        size_bytes=size,
        inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 3, 300, 300), layout="NCHW"),),
        outputs=outputs,
        image=ImageSpec(height=300, width=300, mean=(127.0,) * 3, std=(128.0,) * 3),
        decoding=Decoding(),
        labels=("background", "circle"),
        calibration=calibration if precision == "int8" else None,
        toolchain={"onnx": "1.23.2"} if exporter.startswith("onnx") else {"torch": "2.13.0"},
        fingerprint=hashlib.sha256(digest.encode()).hexdigest(),
        created_at="2026-11-20T18:58:00+00:00",
        export_ns=12_300_000_000,
    )
