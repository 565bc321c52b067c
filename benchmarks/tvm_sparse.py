"""The pruned detector in TVM's sparse kernels against every dense runtime, interleaved.

    python benchmarks/tvm_sparse.py                            # 80 % and 90 %, 1 and 2 threads
    python benchmarks/tvm_sparse.py --recipes prune:0.9,pattern=4x1 --threads 1 --layers 10

For each recipe it exports the model in every way (exports are cached), opens all of them in one
process per number of threads, and runs them in turns, each call after a pause and an untimed one.
Printed are least and median times and how much faster than ONNX Runtime's float each is. With one
thread also the CPU time of the calling thread, which a busy machine disturbs less than the clock.
``--layers`` prints the largest pointwise layers of the sparse module against what this core can do:
the arithmetic and the bytes of the weights that are not zero.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

if "--threads-here" in sys.argv:  # before numpy starts its threads
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import artifacts, config, recipes
from harness.building import load_network, model_spec
from harness.cache import cache_dir
from harness.children import run_child
from harness.execute import intact
from harness.images import Preprocessor
from harness.interfaces import RUNNERS, RunOptions
from harness.plan import export_tasks
from harness.tasks import ExportTask

RUN_BY = {
    "tvm_sparse": "tvm_cpu",
    "tvm_dense": "tvm_cpu",
    "onnx_float": "ort_cpu",
    "onnx_int8": "ort_cpu",
    "tflite_float": "litert_cpu",
    "tflite_int8": "litert_cpu",
}
EAGER, COMPILED = "torch eager", "torch compiled"
BASE = "onnx_float"
IDLE_S = 0.03
"""Before each call: other runtimes' threads keep spinning for a while after theirs."""


def tasks(model: str, recipe: str) -> dict[str, ExportTask]:
    """The export of each contender, by exporter."""
    asked = {"models": [model], "recipes": [recipe], "exporters": list(RUN_BY)}
    return {task.request.exporter.name: task for task in export_tasks(config.load(None, asked))}


def export(model: str, recipe: str) -> None:
    """Export what is not in the cache."""
    for name, task in tasks(model, recipe).items():
        if not intact(Path(task.folder)):
            logs, short = cache_dir("logs"), f"export-{task.fingerprint[:10]}"
            result = run_child(task, folder=logs, name=short, timeout_s=1800)
            if result.state != "ok":
                sys.exit(f"{name}: {result.state}: {result.error}")
        artifact = artifacts.load(Path(task.folder))
        said = next((note for note in artifact.notes if "are sparse" in note), "")
        print(f"{name}: {artifact.size_bytes / 1e6:.1f} MB {said}".rstrip(), flush=True)


def contenders(model: str, recipe: str, threads: int, torch_too: bool) -> dict[str, Any]:
    """A call without arguments for each; they answer the same picture."""
    found: dict[str, Callable[[], Any]] = {}
    planned = tasks(model, recipe)
    for name, task in planned.items():  # TVM first: its runner keeps torch out of its own import
        folder = Path(task.folder)
        artifact = artifacts.load(folder)
        runner = RUNNERS.get(RUN_BY[name])()
        session = runner.open(artifact, folder, RunOptions(threads=threads))
        photo = artifacts.golden(folder).images[0]
        image = Preprocessor(artifact.image, artifact.inputs[0])(photo)
        found[name] = lambda session=session, image=image: session.run(image)
    if torch_too:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        request = planned[BASE].request
        spec = model_spec(request)
        network = load_network(spec, Path(request.weights_path))
        network, _ = recipes.parse(recipe).apply(spec, network)
        picture = torch.from_numpy(image_of(planned[BASE]))
        compiled = torch.compile(network)
        found[EAGER] = lambda: network(picture)
        found[COMPILED] = lambda: compiled(picture)
    return found


def image_of(task: ExportTask) -> Any:
    """The golden picture as float input."""
    folder = Path(task.folder)
    artifact = artifacts.load(folder)
    return Preprocessor(artifact.image, artifact.inputs[0])(artifacts.golden(folder).images[0])


def compare(model: str, recipe: str, threads: int, rounds: int, torch_too: bool) -> None:
    """Run all in turns; print a table by each clock."""
    calls = contenders(model, recipe, threads, torch_too)
    for call in calls.values():
        for _ in range(3):
            call()
    clocks = {"wall": time.perf_counter} | ({"CPU": time.thread_time} if threads == 1 else {})
    samples: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in calls} for clock in clocks
    }
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for index in order.permutation(len(calls)):
            name, call = list(calls.items())[index]
            time.sleep(IDLE_S)
            call()
            start = {clock: read() for clock, read in clocks.items()}
            call()
            for clock, read in clocks.items():
                samples[clock][name].append((read() - start[clock]) * 1e3)
    for clock, by_name in samples.items():
        base = by_name[BASE]
        print(f"{recipe}, {threads} thread(s), {clock} time, {rounds} rounds")
        print(f"  {'':14} {'least':>8} {'median':>8} ms   faster than {BASE}: least median")
        for name, values in sorted(by_name.items(), key=lambda item: median(item[1])):
            print(
                f"  {name:14} {min(values):8.2f} {median(values):8.2f}"
                f" {min(base) / min(values):24.2f} {median(base) / median(values):6.2f}"
            )


def layers(model: str, recipe: str, count: int) -> None:
    """The largest pointwise layers of the sparse module, and what holds each back."""
    artifact = artifacts.load(Path(tasks(model, recipe)["tvm_sparse"].folder))
    flops, memory = peak_flops(), bandwidth()
    print(
        f"{recipe}: one core reaches {flops / 1e9:.0f} GFLOP/s (sgemm) and copies"
        f" {memory / 1e9:.1f} GB/s (read and write, 64 MB)"
    )
    head = "dense µs  sparse µs  GFLOP/s  MB moved  FLOP/B  ideal µs  bound by"
    print(f"  {'layer':24} {'zeros':>6}  {head}")
    rows = []
    for layer in artifact.layers:
        inputs, outputs, height, width = map(int, re.findall(r"\d+", layer.layer))
        kept = (1 - layer.sparsity) * inputs * outputs
        work = 2 * kept * height * width
        moved = 4 * (inputs + outputs) * height * width + 8 * kept
        rows.append((inputs * outputs * height * width, layer, work, moved))
    for _, layer, work, moved in sorted(rows, key=lambda row: -row[0])[:count]:
        taken = layer.sparse_us if layer.chosen.startswith("sparse") else layer.dense_us
        if taken is None:
            continue
        ideal = max(work / flops, moved / memory) * 1e6
        bound = "arithmetic" if work / flops > moved / memory else "memory"
        print(
            f"  {layer.layer:24} {layer.sparsity:6.1%}  {layer.dense_us or 0:8.0f}"
            f"  {layer.sparse_us or 0:9.0f}  {work / taken / 1e3:7.1f}  {moved / 1e6:8.2f}"
            f"  {work / moved:6.1f}  {ideal:8.0f}  {bound}"
        )


def peak_flops(size: int = 768) -> float:
    """FLOP/s of a matrix product of numpy's library on one thread."""
    left = np.ones((size, size), np.float32)
    times = []
    for _ in range(12):
        start = time.thread_time()
        left @ left
        times.append(time.thread_time() - start)
    return 2 * size**3 / min(times)


def bandwidth(size: int = 16 << 20) -> float:
    """Bytes/s read and written by a copy of float32 values that no cache holds."""
    source, target = np.ones(size, np.float32), np.empty(size, np.float32)
    times = []
    for _ in range(12):
        start = time.thread_time()
        np.copyto(target, source)
        times.append(time.thread_time() - start)
    return 2 * 4 * size / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="mb2_ssd_lite", help="name:option=value,…")
    parser.add_argument("--recipes", nargs="+", default=["prune:0.8", "prune:0.9"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--layers", type=int, default=0, help="print so many largest layers")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--threads-here", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.threads_here is not None:
        (recipe,) = given.recipes
        if given.threads_here == 0:
            layers(given.model, recipe, given.layers)
        else:
            compare(given.model, recipe, given.threads_here, given.rounds, not given.no_torch)
        return
    for recipe in given.recipes:
        export(given.model, recipe)
        # A process each: the number of threads is set once in one.
        own = [sys.executable, __file__, given.model, "--recipes", recipe]
        own += ["--rounds", str(given.rounds), "--layers", str(given.layers)]
        own += ["--no-torch"] * given.no_torch
        for threads in [*given.threads, *([0] if given.layers else [])]:
            subprocess.run([*own, "--threads-here", str(threads)], check=True)


if __name__ == "__main__":
    main()
