"""The timed part of a latency cell: the tight loop, and the pipeline from file to boxes.

Counting threads, keeping outputs, checking them and looking for caches all happen before or after
the timed intervals, never inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness import crowd, detections, parity
from harness.errors import ParityFailed, Unsupported
from harness.images import decode_image, encode_jpeg, has_codecs
from harness.interfaces import Dataset, Outputs
from harness.opened import Opened, Pictures
from harness.pacing import time_paced
from harness.records import Measurement
from harness.tasks import MeasureTask
from harness.threads import strays, threads_used
from harness.timing import TIERS, Kept, Tier, Timing, time_calls, time_repeats, time_stages
from harness.turns import baton

RING = 8
"""Prepared inputs that take turns while timing: no runtime sees the same one twice in a row."""
PIPELINE_S = 1.0
"""Least time of the pipeline's stages; the tight loop has the tier's own."""
DEVICE_RUNS = 64
"""Timed by another machine's own clock, in each round."""
KEPT = 4
"""Timed calls whose outputs are compared with those of other runs on the same input."""
PAIRS = 12
"""Inputs that are timed twice in a row, in each round, to find a runtime that caches."""
JPEG_QUALITY = 90
"""Of the file that stands in for a picture that has none."""
TIMED_SQNR_DB = 60.0


def time_cell(
    task: MeasureTask, opened: Opened, data: Dataset, images: Pictures
) -> list[Measurement]:
    """One round of a cell.

    Args:
        images: pictures of ``data``, the first ones, in its order.

    Raises:
        ParityFailed: a timed call answered something else than an untimed call on the same input,
            or than the run that gave the accuracy.
    """
    tier = TIERS[task.tier].share(task.rounds)
    turns = [_turn(slot, opened.batch, len(images)) for slot in range(len(images))]
    ring = [opened.feed([images[i] for i in turn]) for turn in turns]
    session = opened.session
    used = threads_used(lambda: session.run(ring[0]))
    check_cores(task)
    others = baton()
    tight = time_calls(
        lambda slot: session.run(ring[slot]),
        tier,
        inputs=len(ring),
        keep=KEPT,
        seed=task.seed + task.round,
        give_way=others.give_way if others else None,
    )
    if others:
        others.timed()
    for kept in tight.kept:
        _check_timed(opened.kind.names, kept.output, session.run(ring[kept.slot]))
    if task.scored:
        _check_scored(Path(task.scored), tight.kept, turns, opened, data, images)
    steady, _, warmup = tight.measurements("inference")
    checked = {"batch": opened.batch, "outputs_equal": _checked(task)}
    return [
        _with(steady, checked),
        warmup,
        *_resumed(tight),
        *_repeats(opened, ring),
        *_on_device(opened, ring),
        *_pipeline(tier, task.rounds, opened, data, images, turns),
        *_paced(task, tier, opened, ring),
        *(crowd.curve(opened, task.seed) if task.round == 0 else []),
        *([_threads(used)] if used is not None else []),
    ]


def _resumed(tight: Timing) -> list[Measurement]:
    """The first call of each turn, whose caches hold what another process left in them."""
    samples = tuple(float(sample) for sample in tight.resumed_ns)
    return [Measurement(metric="latency.resumed", value=None, unit="ns", samples=samples)] * bool(
        samples
    )


def _turn(start: int, batch: int, count: int) -> tuple[int, ...]:
    """Which pictures make the batch that starts at picture ``start``."""
    return tuple((start + offset) % count for offset in range(batch))


def _paced(
    task: MeasureTask, tier: Tier, opened: Opened, ring: Sequence[NDArray[Any]]
) -> list[Measurement]:
    """The same calls at a camera's rate, where one was asked for."""
    if task.pace_ns is None:
        return []
    run = opened.session.run
    paced = time_paced(lambda slot: run(ring[slot]), tier, task.pace_ns, inputs=len(ring))
    return [paced.measurement({"batch": opened.batch, "tier": tier.name})]


def check_cores(task: MeasureTask) -> None:
    """See that every thread stays on the cores that were asked for.

    Raises:
        Unsupported: the runtime moved a thread to others.
    """
    if task.cpus is not None and (count := strays(task.cpus)):
        raise Unsupported(
            f"{task.cell.runner} lets {count} of its threads run on other cores than"
            f" {','.join(map(str, task.cpus))}: leave --cpus out for it"
        )


def _repeats(opened: Opened, ring: Sequence[NDArray[Any]]) -> list[Measurement]:
    """Inputs never seen before, each timed twice in a row (MLPerf's TEST04)."""
    fresh = [np.roll(ring[i % len(ring)], i + 1, axis=-1) for i in range(PAIRS)]
    first, again = time_repeats(lambda slot: opened.session.run(fresh[slot]), PAIRS, pairs=PAIRS)
    return [
        Measurement(metric=f"latency.{name}", value=None, unit="ns", samples=tuple(map(float, ns)))
        for name, ns in (("fresh", first), ("repeated", again))
    ]


def _on_device(opened: Opened, ring: Sequence[NDArray[Any]]) -> list[Measurement]:
    """Runs by another machine's own clock, without the network; none where it is this machine."""
    samples = opened.session.time_on_device(ring[0], DEVICE_RUNS)
    conditions = {"batch": opened.batch}
    return [
        Measurement(
            metric="latency.on_device",
            value=None,
            unit="ns",
            samples=samples,
            conditions=conditions,
        )
    ] * bool(samples)


def _pipeline(
    tier: Tier,
    rounds: int,
    opened: Opened,
    data: Dataset,
    images: Pictures,
    turns: Sequence[tuple[int, ...]],
) -> list[Measurement]:
    """From picture file to detections, stage by stage; files are read before, disks not timed."""
    if not has_codecs():
        return _prepared_pipeline(tier, rounds, opened, images, turns)
    stored = [data.encoded(index) for index in range(len(images))]
    files = [
        file if file is not None else encode_jpeg(image, JPEG_QUALITY)
        for file, image in zip(stored, images, strict=True)
    ]
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    timed = time_stages(
        {
            "decode_image": lambda slot: (slot, [decode_image(files[i]) for i in turns[slot]]),
            "preprocess": lambda given: (given[0], opened.feed(given[1])),
            "inference_in_pipeline": lambda given: (given[0], opened.session.run(given[1])),
            "postprocess": lambda given: opened.detect(
                given[1], [sizes[i] for i in turns[given[0]]]
            ),
        },
        msgspec.structs.replace(tier, seconds=min(tier.seconds, PIPELINE_S / rounds)),
        inputs=len(images),
    )
    made = f"JPEG of quality {JPEG_QUALITY}, made from the drawn picture"
    facts = {"batch": opened.batch, "files": "the data set's" if all(stored) else made}
    return [_with(timing.measurements(name)[0], facts) for name, timing in timed.items()]


def _prepared_pipeline(
    tier: Tier, rounds: int, opened: Opened, images: Pictures, turns: Sequence[tuple[int, ...]]
) -> list[Measurement]:
    """The stages behind decoding, on a device without Pillow; their sum is no end to end."""
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    timed = time_stages(
        {
            "preprocess": lambda slot: (slot, opened.feed([images[i] for i in turns[slot]])),
            "inference_in_pipeline": lambda given: (given[0], opened.session.run(given[1])),
            "postprocess": lambda given: opened.detect(
                given[1], [sizes[i] for i in turns[given[0]]]
            ),
        },
        msgspec.structs.replace(tier, seconds=min(tier.seconds, PIPELINE_S / rounds)),
        inputs=len(images),
    )
    facts = {"batch": opened.batch, "files": "none: Pillow is not installed, nothing is decoded"}
    del timed["end_to_end"]
    return [_with(timing.measurements(name)[0], facts) for name, timing in timed.items()]


def _check_timed(names: Sequence[str], timed: Outputs, again: Outputs) -> None:
    """What a timed call answered must be what an untimed one answers (MLPerf's TEST01).

    Raises:
        ParityFailed: it differs by more than float rounding in another order.
    """
    for head, error in parity.compare_heads(_real(again), _real(timed), names).items():
        if error.sqnr_db < TIMED_SQNR_DB:
            raise ParityFailed(
                f"{head} of a timed call have an SQNR of {error.sqnr_db:.1f} dB against an untimed"
                f" call on the same input (at least {TIMED_SQNR_DB:g} dB): the runtime computes"
                " something else under load"
            )


def _check_scored(
    path: Path,
    kept: Sequence[Kept],
    turns: Sequence[tuple[int, ...]],
    opened: Opened,
    data: Dataset,
    images: Pictures,
) -> None:
    """What timed calls detected must be what the run that gave the accuracy detected.

    Raises:
        ParityFailed: a detection that is shown was lost, is new, moved or has another score.
    """
    evidence = detections.load(path)
    scored = dict(zip(evidence.names, evidence.detections, strict=True))
    for one in kept:
        pictures = turns[one.slot]
        names = [data.image_id(i) for i in pictures]
        if not all(name in scored for name in names):
            continue  # fewer pictures were scored than take turns
        found = opened.detect(one.output, [images[i].shape[:2] for i in pictures])
        changes = parity.compare_detections([scored[name] for name in names], found)
        wrong = {key: n for key, n in changes._asdict().items() if n and key != "matched"}
        if wrong:
            said = ", ".join(f"{count} {key}" for key, count in wrong.items())
            raise ParityFailed(
                f"detections of a timed call on {', '.join(names)} are not those of the accuracy"
                f" run ({said}): what was timed is not what was scored"
            )


def _checked(task: MeasureTask) -> list[str]:
    """What the kept outputs of timed calls were held against."""
    return ["untimed calls", *(["the accuracy run"] if task.scored else [])]


def _threads(used: int) -> Measurement:
    return Measurement(metric="threads.used", value=float(used), unit="threads")


def _with(measurement: Measurement, more: dict[str, Any]) -> Measurement:
    return msgspec.structs.replace(measurement, conditions={**measurement.conditions, **more})


def _real(answer: Outputs) -> Outputs:
    return tuple(values.astype(np.float64) for values in answer)
