"""TVM's hand-written dense kernels against ONNX Runtime's float ones, interleaved.

    python benchmarks/tvm_dense.py mb2_ssd_lite --threads 1 2 --layers 10
    python benchmarks/tvm_dense.py etinynet_ssd_lite:width=0.35

Exports the model with its shipped weights both ways, says how long that took and how far TVM's
answer is from torch's, then runs the two in turns in one process per thread count and prints the
times and their ratio. The goal is a ratio of at most 1.5. With one thread it also prints the CPU
time of the calling thread, which a busy machine disturbs less than the clock on the wall.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import weights
from harness.building import load_network
from harness.extras import require
from harness.interfaces import EXPORTERS, MODELS, RUNNERS, Exported, ExportJob, RunOptions
from harness.records import Artifact, FileEntry, ModelSpec, decode, encode
from harness.requests import Request, parse

PAIRS = (("tvm_dense", "tvm_cpu"), ("onnx_float", "ort_cpu"))
GOAL = 1.5
IDLE_S = 0.03
"""Before each call: ONNX Runtime's threads keep spinning for a while after theirs."""


def export(request: Request, folder: Path) -> None:
    """Write an artifact per exporter and one image with torch's answer."""
    torch = require("torch", extra="torch")
    make = MODELS.get(request.name)
    options = make(("background", "anything"), **request.options).options
    shipped = weights.find(request.name, options, "shipped", None)
    spec = make(shipped.labels, **request.options)
    network = load_network(spec, shipped.path)
    torch.manual_seed(0)
    image = torch.randn(1, 3, spec.image.height, spec.image.width)
    with torch.inference_mode():
        logits, offsets = network(image)
    np.savez(folder / "answer.npz", image=image, logits=logits, offsets=offsets)
    for name, _ in PAIRS:
        exporter = EXPORTERS.get(name)()
        own = folder / name
        own.mkdir()
        job = ExportJob(
            spec=spec, network=network, options=exporter.options, calibration=None, folder=own
        )
        wall, cpu = time.perf_counter(), time.process_time()
        made = exporter.export(job)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        (own / "artifact.json").write_bytes(encode(manifest(name, spec, made, own)))
        print(f"{name}: exported in {wall:.1f} s, {cpu:.1f} s of CPU time")
        for note in made.notes:
            print(f"  {note}")


def manifest(exporter: str, spec: ModelSpec, made: Exported, folder: Path) -> Artifact:
    """As much of a manifest as a runner reads."""
    files = tuple(
        FileEntry(path=name, role="model", sha256="", size_bytes=(folder / name).stat().st_size)
        for name in made.files
    )
    return Artifact(
        model=spec.name,
        model_options=dict(spec.options),
        weights_sha256="",
        weights_source="shipped",
        recipe="none",
        exporter=exporter,
        format=EXPORTERS.get(exporter).format,
        precision="float32",
        options={},
        files=files,
        sha256="",
        size_bytes=sum(entry.size_bytes for entry in files),
        inputs=made.inputs,
        outputs=made.outputs,
        image=spec.image,
        decoding=spec.decoding,
        labels=spec.labels,
        calibration=None,
        toolchain=dict(made.toolchain),
        fingerprint="",
        created_at="",
        export_ns=0,
    )


def compare(folder: Path, threads: int, rounds: int) -> None:
    """Run both in turns and print times, their ratio and the distance from torch."""
    answer = np.load(folder / "answer.npz")
    image = answer["image"]
    sessions = {}
    for exporter, runner in PAIRS:
        path = folder / exporter
        artifact = decode((path / "artifact.json").read_bytes(), Artifact, path)
        options = RunOptions(threads=threads)
        sessions[exporter] = RUNNERS.get(runner)().open(artifact, path, options)
    found = sessions["tvm_dense"].run(image)
    for name, output in zip(("logits", "offsets"), found, strict=True):
        error = np.abs(output - answer[name]).max() / np.abs(answer[name]).max()
        print(f"{name}: largest difference from torch {error:.1e} of the largest magnitude")
    clocks = {"wall": time.perf_counter} | ({"CPU": time.thread_time} if threads == 1 else {})
    for clock_name, clock in clocks.items():
        samples: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for name, session in sessions.items():
                time.sleep(IDLE_S)
                session.run(image)
                start = clock()
                session.run(image)
                samples[name].append((clock() - start) * 1e3)
        for name, values in samples.items():
            print(
                f"{threads} thread(s), {clock_name} time, {name:10}:"
                f" least {min(values):6.2f} ms, median {median(values):6.2f} ms"
            )
        ours, theirs = (samples[name] for name, _ in PAIRS)
        print(
            f"{threads} thread(s), {clock_name} time, ratio     :"
            f" least {min(ours) / min(theirs):.2f}, median {median(ours) / median(theirs):.2f}"
            f" (goal {GOAL})"
        )


def layers(folder: Path, count: int, rounds: int = 20) -> None:
    """Print the kernels that take longest at one thread, by the least time of each call."""
    path = folder / "tvm_dense"
    artifact = decode((path / "artifact.json").read_bytes(), Artifact, path)
    session: Any = RUNNERS.get("tvm_cpu")().open(artifact, path, RunOptions(threads=1))
    image = np.load(folder / "answer.npz")["image"]
    calls: list[tuple[str, float]] = []
    started = 0.0

    def watch(function: Any, name: str, before: bool, *_: Any) -> None:
        nonlocal started
        if before:
            started = time.perf_counter()
        else:
            calls.append((name, time.perf_counter() - started))

    session.machine.set_instrument(watch)
    least: dict[int, tuple[str, float]] = {}
    for _ in range(rounds):
        calls.clear()
        session.run(image)
        for place, (name, seconds) in enumerate(calls):
            old = least.get(place, (name, seconds))[1]
            least[place] = (name, min(old, seconds))
    total: dict[str, list[float]] = defaultdict(list)
    for name, seconds in least.values():
        total[name].append(seconds * 1e6)
    for name, times in sorted(total.items(), key=lambda item: -sum(item[1]))[:count]:
        print(f"{sum(times):8.0f} µs in {len(times)} call(s): {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="mb2_ssd_lite", help="name:option=value,…")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--layers", type=int, default=0, help="print so many slowest kernels")
    parser.add_argument("--part", choices=("export", "compare", "layers"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "export": lambda: export(parse(given.model), given.folder),
        "compare": lambda: compare(given.folder, given.threads[0], given.rounds),
        "layers": lambda: layers(given.folder, given.layers),
    }
    if given.part:
        parts[given.part]()
        return
    with tempfile.TemporaryDirectory() as name:
        # Each part in a process of its own: torch, TVM and the number of threads live once in one.
        own = [sys.executable, __file__, given.model, "--folder", name]
        subprocess.run([*own, "--part", "export"], check=True)
        for threads in given.threads:
            more = ["--threads", str(threads), "--rounds", str(given.rounds)]
            subprocess.run([*own, "--part", "compare", *more], check=True)
        if given.layers:
            subprocess.run([*own, "--part", "layers", "--layers", str(given.layers)], check=True)


if __name__ == "__main__":
    main()
