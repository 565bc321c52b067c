"""How fast accuracy is measured, against what one would write at first; ratios within one run.

    python benchmarks/accuracy.py [decode] [coco] [bootstrap] [pipeline]      (default: all)

- ``decode``: decoding and suppression of one image, 3,000 priors × 21 classes, against a loop over
  classes in torch as pytorch-ssd describes it (200 candidates a class, IoU 0.45). Both answer the
  same boxes, which is checked. Goal: 20 times as fast.
- ``coco``: the twelve COCO figures of 5,000 images × 100 detections, 80 classes, against
  pycocotools, whose objects are in memory before its clock starts. Goal: at least as fast.
- ``bootstrap``: 1,000 resamples over the same 5,000 images. Goal: under 30 s.
- ``pipeline``: a whole evaluation, from stored picture to detections, against the network alone on
  prepared inputs, both on two cores: the network at two threads, the evaluation as `detbench eval`
  does it, in two processes of one thread. Goal: at most 1.3 times the network's time.

What is compared takes turns and the medians are compared, so that a machine that slows down slows
both. Where both sides use one thread, what is counted is CPU time, which others on the machine
disturb least; the pipeline is wall time. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

if __name__ == "__main__":  # run as a script, the checkout is not on the path unless installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.accuracy.audit import coco_evaluation
from harness.accuracy.bootstrap import draw, interval
from harness.accuracy.coco import FIGURES, coco_matches, coco_summary
from harness.accuracy.curves import means, recall_levels
from harness.decode import decode
from harness.interfaces import Detections, RawOutputs, Truth
from harness.policies import policy

CLASSES = 21
PRIORS = 3000
LABELS = ("background", *(f"class {number}" for number in range(1, 81)))


def seconds(*works: Callable[[], Any], turns: int) -> list[float]:
    """Median of each work's CPU time; the works take turns."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(1 if turns == 1 else 0, turns + 1):  # the first of several warms up
        for sink, work in zip(taken, works, strict=True):
            begun = time.process_time()
            work()
            if turn:
                sink.append(time.process_time() - begun)
    return [median(one) for one in taken]


def head(crowded: bool) -> tuple[RawOutputs, np.ndarray]:
    """A head's answer to one image.

    A trained one: eight objects, each with some forty priors that know its class, and noise that
    lets one prior in twenty pass 0.01. A crowded one passes 200 candidates in every class.
    """
    rng = np.random.default_rng(0)
    priors = np.concatenate(
        [rng.uniform(0, 1, (PRIORS, 2)), rng.uniform(0.05, 0.5, (PRIORS, 2))], 1
    )
    logits = rng.normal(0, 1.0, (PRIORS, CLASSES))
    logits[:, 0] += 1.0 if crowded else 7.5
    if not crowded:
        for label in rng.integers(1, CLASSES, 8):
            near = np.argsort(((priors[:, :2] - rng.uniform(0.1, 0.9, 2)) ** 2).sum(axis=1))[:40]
            logits[near, label] += rng.uniform(4, 10, 40)
    offsets = rng.normal(0, 0.5, (PRIORS, 4))
    return (
        RawOutputs(logits[None].astype(np.float32), offsets[None].astype(np.float32)),
        priors.astype(np.float32),
    )


def torch_loop(logits: Any, offsets: Any, priors: Any, size: tuple[int, int]) -> list[Any]:
    """Boxes, scores and labels: a class at a time, a box at a time, in torch tensors."""
    import torch

    scores = torch.softmax(logits, dim=1)
    center = offsets[:, :2] * 0.1 * priors[:, 2:] + priors[:, :2]
    half = torch.exp(offsets[:, 2:] * 0.2) * priors[:, 2:] / 2
    boxes = torch.cat([center - half, center + half], dim=1)
    scale = torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
    found = []
    for label in range(1, scores.shape[1]):
        own = scores[:, label]
        passed = own > 0.01
        if not passed.any():
            continue
        own, near = own[passed], boxes[passed]
        left = own.sort(descending=True).indices[:200]
        kept = []
        while len(left):
            best, left = left[0], left[1:]
            kept.append(best)
            low = torch.maximum(near[left, :2], near[best, :2])
            high = torch.minimum(near[left, 2:], near[best, 2:])
            inter = (high - low).clamp(min=0).prod(dim=1)
            areas = (near[left, 2:] - near[left, :2]).clamp(min=0).prod(dim=1)
            area = (near[best, 2:] - near[best, :2]).clamp(min=0).prod()
            left = left[inter / (areas + area - inter + 1e-5) <= 0.45]
        chosen = torch.stack(kept)
        found.append((near[chosen] * scale, own[chosen], torch.full((len(kept),), label)))
    return [torch.cat(column) for column in zip(*found, strict=True)]


def bench_decode() -> bool:
    """Both heads; the goal is held against the trained one."""
    import torch

    torch.set_num_threads(1)
    fast, slow, count = decode_seconds(crowded=False, turns=21)
    met = slow / fast >= 20
    print(
        f"decode + NMS, {PRIORS} priors x {CLASSES} classes, a trained head: {count} detections,"
        f" ours {fast * 1e3:.2f} ms, torch loop {slow * 1e3:.1f} ms, {slow / fast:.1f} times as"
        f" fast (goal: 20, {'met' if met else 'missed'})"
    )
    fast, slow, count = decode_seconds(crowded=True, turns=5)
    print(
        f"the same, a crowded head: {count} detections, ours {fast * 1e3:.2f} ms, torch loop"
        f" {slow * 1e3:.1f} ms, {slow / fast:.1f} times as fast"
    )
    return met


def decode_seconds(*, crowded: bool, turns: int) -> tuple[float, float, int]:
    """Ours, the loop's, and how many detections both answer."""
    import torch

    outputs, priors = head(crowded)
    rules, size = policy("pytorch-ssd"), (300, 400)
    tensors = [torch.from_numpy(part) for part in (outputs.logits[0], outputs.offsets[0], priors)]

    def ours() -> Detections:
        return decode(outputs, priors=priors, decoding=rules, sizes=[size])[0]

    def loop() -> list[Any]:
        return torch_loop(*tensors, size)

    same_boxes(ours(), loop())
    fast, slow = seconds(ours, loop, turns=turns)
    return fast, slow, len(ours().scores)


def same_boxes(ours: Detections, loop: Sequence[Any]) -> None:
    """Refuse to compare the speed of two that do not answer the same.

    The loop keeps boxes that lie wholly outside the image, which we drop; it computes in float32.
    """
    boxes, scores, labels = (part.numpy() for part in loop)
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < (400, 300)).all(axis=1)
    boxes, scores, labels = boxes[inside], scores[inside], labels[inside]
    one = np.lexsort((ours.boxes[:, 0], -ours.scores.round(5), ours.labels))
    two = np.lexsort((boxes[:, 0], -scores.round(5), labels))
    assert np.array_equal(ours.labels[one], labels[two])
    np.testing.assert_allclose(ours.boxes[one], boxes[two], atol=1e-2)


def big_case(images: int = 5000, detections: int = 100) -> tuple[list[Truth], list[Detections]]:
    """COCO's proportions: seven objects an image, 80 classes of falling frequency."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, 81)
    frequency /= frequency.sum()
    truths, found = [], []
    for _ in range(images):
        objects = rng.poisson(7)
        low = rng.uniform(0, 500, (objects, 2))
        boxes = np.concatenate([low, low + rng.lognormal(4, 0.8, (objects, 2))], 1)
        labels = rng.choice(80, objects, p=frequency) + 1
        crowd = rng.random(objects) < 0.01
        truths.append(Truth(boxes.astype("f4"), labels, np.zeros(objects, bool), crowd))
        low = rng.uniform(0, 500, (detections, 2))
        guesses = np.concatenate([low, low + rng.lognormal(4, 0.8, (detections, 2))], 1)
        named = rng.choice(80, detections, p=frequency) + 1
        scores = rng.random(detections) * 0.4
        if objects:
            near = rng.random(detections) < 0.25
            source = rng.integers(0, objects, near.sum())
            side = boxes[source, 2:] - boxes[source, :2]
            guesses[near] = boxes[source] + rng.normal(0, 0.1, (near.sum(), 4)) * np.tile(side, 2)
            named[near] = labels[source]
            scores[near] += rng.random(near.sum()) * 0.6
        good = (guesses[:, :2] < guesses[:, 2:]).all(axis=1)
        found.append(Detections(guesses[good].astype("f4"), named[good], scores[good].astype("f4")))
    return truths, found


def bench_coco() -> bool:
    truths, found = big_case()
    stats: dict[str, Any] = {}

    def ours() -> None:
        stats["ours"] = coco_summary(truths, found, LABELS).figures

    judge = coco_evaluation(truths, found, len(LABELS))
    ours_s, theirs_s = seconds(ours, lambda: stats.update(theirs=judge()), turns=1)
    apart = max(abs(stats["ours"][name] - stats["theirs"][name]) for name in FIGURES)
    assert apart < 1e-9, apart
    print(
        f"COCO figures, 5000 images x 100 detections: ours {ours_s:.1f} s, pycocotools"
        f" {theirs_s:.1f} s, {theirs_s / ours_s:.1f} times as fast, figures apart by"
        f" {apart:.1g} (goal: at least as fast, {'met' if ours_s <= theirs_s else 'missed'})"
    )
    return ours_s <= theirs_s


def bench_bootstrap() -> bool:
    truths, found = big_case()
    begun = time.process_time()
    matches = coco_matches(truths, found, len(LABELS))
    matched = time.process_time()
    values = means(matches, draw(len(truths), 1000, 0), recall_levels)[0].mean(axis=0)
    limits = interval(values)
    taken = time.process_time() - matched
    assert limits is not None
    print(
        f"bootstrap, 1000 resamples over 5000 images, ten IoU thresholds, 80 classes:"
        f" {taken:.1f} s after {matched - begun:.1f} s of matching, 95 % interval"
        f" {limits.low:.4f} to {limits.high:.4f} (goal: under 30 s,"
        f" {'met' if taken < 30 else 'missed'})"
    )
    return taken < 30


def bench_pipeline() -> bool:
    """The shipped float model in ONNX Runtime over pictures stored as PNG."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "artifact")
        command = [sys.executable, "-m", "harness", "export", "mb2_ssd_lite", "onnx_float"]
        subprocess.run([*command, "-o", str(folder)], check=True, stdout=subprocess.DEVNULL)
        return pipeline(folder)


class Evaluation:
    """A whole evaluation in this process, ready to run.

    Args:
        folder: the artifact's.
        pictures: of a COCO folder.
        threads: of the runtime.
    """

    def __init__(self, folder: Path, pictures: str, threads: int) -> None:
        from harness import artifacts
        from harness.datasets import open_dataset
        from harness.images import Preprocessor
        from harness.interfaces import RUNNERS, RunOptions
        from harness.opened import Opened

        self.artifact = artifacts.load(folder)
        session = RUNNERS.get("ort_cpu")().open(self.artifact, folder, RunOptions(threads=threads))
        prepare = Preprocessor(self.artifact.image, self.artifact.inputs[0])
        self.opened = Opened(self.artifact, session, prepare, artifacts.priors(folder))
        self.data = open_dataset(f"coco:{pictures}")

    def whole(self, indices: range) -> None:
        from harness.measuring import pass_over

        pass_over(self.opened, self.data, indices)


def _shard(folder: Path, pictures: str, indices: range, orders: Any) -> None:
    """Evaluate ``indices`` once for each order, and say when that is done."""
    evaluation = Evaluation(folder, pictures, threads=1)
    orders.send(True)
    while orders.recv():
        evaluation.whole(indices)
        orders.send(True)


def pipeline(folder: Path, images: int = 64, turns: int = 25) -> bool:
    """The artifact in ``folder``, by wall time."""
    from harness.datasets.shapes import Shapes
    from harness.datasets.writers import write_coco

    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as pictures:
        write_coco(Shapes("val", images), pictures)
        halves = range(images // 2), range(images // 2, images)
        pipes = [spawn.Pipe() for _ in halves]
        for (_, theirs), half in zip(pipes, halves, strict=True):
            given = folder, pictures, half, theirs
            spawn.Process(target=_shard, args=given, daemon=True).start()
        shards = [ours for ours, _ in pipes]
        network = Evaluation(folder, pictures, threads=2)
        opened, data = network.opened, network.data
        ready = [opened.prepare(data.image(index)) for index in range(images)]
        assert all(shard.recv() for shard in shards)

        def alone() -> None:
            for given in ready:
                opened.session.run(given)

        def whole() -> None:
            for shard in shards:
                shard.send(True)
            assert all(shard.recv() for shard in shards)

        taken = np.zeros((2, turns + 1))
        for turn in range(turns + 1):
            for row, work in enumerate((alone, whole)):
                begun = time.perf_counter()
                work()
                taken[row, turn] = (time.perf_counter() - begun) / images * 1e3
        for shard in shards:
            shard.send(False)
    alone_ms, whole_ms = np.median(taken[:, 1:], axis=1)
    ratio = np.median(taken[1, 1:] / taken[0, 1:])
    print(
        f"evaluation of {images} stored pictures, {network.artifact.id}, ONNX Runtime, two"
        f" processes: {whole_ms:.1f} ms an image, the network alone at 2 threads {alone_ms:.1f} ms,"
        f" ratio {ratio:.2f} (goal: 1.3, {'met' if ratio <= 1.3 else 'missed'})"
    )
    return bool(ratio <= 1.3)


BENCHES = {
    "decode": bench_decode,
    "coco": bench_coco,
    "bootstrap": bench_bootstrap,
    "pipeline": bench_pipeline,
}


def main(arguments: Sequence[str]) -> int:
    """Run what is named, or all."""
    results = [BENCHES[name]() for name in arguments or BENCHES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
