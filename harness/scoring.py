"""Run a model over a data set, image by image, and keep what it found.

An image that cannot be read, or whose annotation cannot be true, ends the evaluation, unless bad
images are left out; then each is counted and named. The images of a cell may be split into shards
that other processes run: `merge` joins what they found in the data set's order, so the figures are
those of one pass over all images, to the last bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.detections import Found
from harness.errors import BadAnnotation, BadImage
from harness.images import pixels_digest
from harness.interfaces import Dataset, Detections, Truth
from harness.records import CalibrationList, Measurement

SHOWN = 50
"""Bad images that a record names; all are counted."""
STAGES = ("image", "preprocess", "inference", "postprocess", "wall")
OVERLAP, SKIPPED = "accuracy.calibration_overlap", "accuracy.skipped"

AHEAD = 4
"""Pictures that are read and prepared while the model runs."""
Model = Callable[[Any, Callable[[str], None]], Detections]
"""Finds objects in one prepared picture; calls back with a stage's name when that stage is done."""


class _Read(NamedTuple):
    """One image, read and prepared, and how long both took."""

    truth: Truth | None
    size: tuple[int, int]
    digest: str
    prepared: Any
    calibrated: bool
    image_ns: int
    preprocess_ns: int


class Pass(NamedTuple):
    """What came of one pass: the evidence, the time of each stage, and what the images were."""

    found: Found
    measurements: tuple[Measurement, ...]


def shard_range(images: int, shard: int, shards: int) -> range:
    """The images of shard ``shard`` of ``shards``: consecutive, all images in exactly one shard."""
    return range(images * shard // shards, images * (shard + 1) // shards)


def run_over(
    data: Dataset,
    indices: Iterable[int],
    model: Model,
    *,
    prepare: Callable[[NDArray[np.uint8]], Any] | None = None,
    to_model: NDArray[np.int64] | None,
    calibration: CalibrationList | None,
    skip_bad: bool,
    dropped: Sequence[str] = (),
) -> Pass:
    """Detect in the images ``indices`` of ``data``.

    Another thread reads and prepares the next pictures while the model runs on one; what is found
    does not depend on it.

    Args:
        prepare: makes the model's input of a picture; without it the model takes the picture.
        to_model: index into the model's labels for each of the data set's; None without ground
            truth.
        calibration: the images that calibrated the model, to count those that are scored as well.
        dropped: what was left out when the data set was opened, to be counted in one shard.

    Raises:
        BadImage, BadAnnotation: one of the images, where bad ones are not left out.
    """
    known = calibrating(calibration)
    clock = _Clock()
    found = Found([], [], [], [], [] if to_model is not None else None)
    bad: list[dict[str, str]] = [{"id": "", "reason": reason} for reason in dropped]
    common = 0

    def read(index: int) -> _Read:
        begun = time.perf_counter_ns()
        truth = _truth(data, index, to_model)
        image = data.image(index)
        digest = data.digest(index)
        there = time.perf_counter_ns()
        prepared = image if prepare is None else prepare(image)
        ready = time.perf_counter_ns()
        own = bool(known) and (digest in known or pixels_digest(image) in known)
        size = (image.shape[0], image.shape[1])
        return _Read(truth, size, digest, prepared, own, there - begun, ready - there)

    begun = time.perf_counter_ns()
    for index, reading in _ahead(read, indices):
        try:
            one = reading.result()
        except (BadImage, BadAnnotation) as error:
            if not skip_bad:
                raise type(error)(f"{error}, or leave such images out with --skip-bad") from error
            bad.append({"id": data.image_id(index), "reason": str(error)})
            continue
        clock.add("image", one.image_ns)
        clock.add("preprocess", one.preprocess_ns)
        clock.start()
        _append(found, data.image_id(index), model(one.prepared, clock.lap), one)
        common += one.calibrated
    clock.add("wall", time.perf_counter_ns() - begun)
    measurements = [*clock.measurements(len(found.names)), _overlap(common, calibration)]
    return Pass(found, (*measurements, _skipped(len(bad), bad)))


def _ahead(
    read: Callable[[int], _Read], indices: Iterable[int]
) -> Iterator[tuple[int, Future[_Read]]]:
    """Each index with its reading, in order; `AHEAD` more are read meanwhile, one at a time."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[tuple[int, Future[_Read]]] = deque()
        try:
            for index in indices:
                waiting.append((index, reader.submit(read, index)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            yield from waiting
        finally:
            reader.shutdown(cancel_futures=True)


def calibrating(calibration: CalibrationList | None) -> frozenset[str]:
    """Both hashes of each image that calibrated: of its source, and of its pixels."""
    if calibration is None:
        return frozenset()
    return frozenset((*calibration.sha256, *calibration.pixels))


def merge(passes: Sequence[Pass]) -> Pass:
    """The passes over consecutive shards as one pass: images in order, times and counts added."""
    first = passes[0].found
    found = Found(
        names=[name for one in passes for name in one.found.names],
        detections=[item for one in passes for item in one.found.detections],
        sizes=[size for one in passes for size in one.found.sizes or ()],
        digests=[digest for one in passes for digest in one.found.digests or ()],
        truths=None
        if first.truths is None
        else [truth for one in passes for truth in one.found.truths or ()],
    )
    columns = [{item.metric: item for item in one.measurements} for one in passes]
    return Pass(found, tuple(_added([column[name] for column in columns]) for name in columns[0]))


def _append(found: Found, name: str, detections: Detections, one: _Read) -> None:
    found.names.append(name)
    found.detections.append(detections)
    if found.sizes is not None and found.digests is not None:
        found.sizes.append(one.size)
        found.digests.append(one.digest)
    if found.truths is not None and one.truth is not None:
        found.truths.append(one.truth)


def _truth(data: Dataset, index: int, to_model: NDArray[np.int64] | None) -> Truth | None:
    if to_model is None:
        return None
    truth = data.truth(index)
    return truth._replace(labels=to_model[truth.labels])


def _overlap(common: int, calibration: CalibrationList | None) -> Measurement:
    """How many evaluation images also calibrated the artifact, by content: it should be 0."""
    images = 0 if calibration is None else len(calibration.sha256)
    return Measurement(
        metric=OVERLAP, value=float(common), unit="images", conditions={"calibrated_on": images}
    )


def _skipped(count: int, bad: Sequence[dict[str, str]]) -> Measurement:
    return Measurement(
        metric=SKIPPED, value=float(count), unit="images", conditions={"bad": list(bad[:SHOWN])}
    )


def _added(parts: Sequence[Measurement]) -> Measurement:
    """One measurement of several shards."""
    if parts[0].metric == SKIPPED:
        bad = [entry for part in parts for entry in part.conditions["bad"]]
        return _skipped(sum(int(part.value or 0) for part in parts), bad)
    conditions = dict(parts[0].conditions)
    if "images" in conditions:
        conditions["images"] = sum(part.conditions["images"] for part in parts)
    return Measurement(
        metric=parts[0].metric,
        value=sum(part.value or 0.0 for part in parts),
        unit=parts[0].unit,
        conditions=conditions,
    )


class _Clock:
    """Time spent in each stage, in nanoseconds."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(STAGES, 0)
        self._since = 0

    def start(self) -> None:
        self._since = time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap belongs to ``stage``."""
        now = time.perf_counter_ns()
        self._spent[stage] += now - self._since
        self._since = now

    def add(self, stage: str, spent: int) -> None:
        self._spent[stage] += spent

    def measurements(self, images: int) -> list[Measurement]:
        return [
            Measurement(
                metric=f"time.{stage}", value=float(spent), unit="ns", conditions={"images": images}
            )
            for stage, spent in self._spent.items()
        ]
