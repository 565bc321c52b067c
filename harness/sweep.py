"""What is asked of each artifact: measures over threads, targets and batch sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness import machine
from harness.config import Matrix
from harness.interfaces import Exporter, Runner, RunOptions
from harness.records import Cell, Measure, Options

BATCH = "batch"
"""The option of an exporter that fixes how many images a call takes."""


class Asked(NamedTuple):
    """One measurement of an artifact."""

    measure: Measure
    threads: int
    target: str


def asked(matrix: Matrix, *, single: bool) -> Iterator[Asked]:
    """Measures in the order they are done.

    Accuracy and parity once, at one thread; latency at every thread count; the profile at the
    fewest threads, where operators do not hide behind each other; a sustained run at the most,
    which heat a device most. ``single`` is False for a batch size after the first, which computes
    the same and is only timed.
    """
    counts = matrix.threads or default_threads()
    threads: Mapping[Measure, tuple[int, ...]] = {
        "accuracy": (1,),
        "parity": (1,),
        "latency": counts,
        "profile": (min(counts),),
        "sustain": (max((n for n in counts if not machine.too_many(n)), default=max(counts)),),
    }
    for target in matrix.targets:
        for measure, numbers in threads.items():
            if measure in matrix.measures and (single or measure == "latency"):
                yield from (Asked(measure, number, target) for number in numbers)


def default_threads() -> tuple[int, ...]:
    """One thread and as many as there are physical cores."""
    return tuple(sorted({1, machine.usable_cores()}))


def batches(matrix: Matrix, exporter: type[Exporter], given: Options) -> tuple[int, ...]:
    """Batch sizes to export: the one that was given with the exporter, else the matrix's."""
    fixed = given.get(BATCH)
    if BATCH in exporter.options and isinstance(fixed, int):
        return (fixed,)
    return tuple(dict.fromkeys(matrix.batches))


def options_for(exporter: type[Exporter], options: Options, batch: int) -> Options:
    """The exporter's options for a batch size; as they are where it has none."""
    return {**options, BATCH: batch} if BATCH in exporter.options else options


def refusal(
    runner: type[Runner], artifact_format: str, cell: Cell, exporter: type[Exporter] | None = None
) -> str | None:
    """Why a cell cannot be measured, in a sentence, or None."""
    if exporter is not None and cell.batch != 1 and BATCH not in exporter.options:
        return f"{exporter.name} exports for single images: it has no option {BATCH}"
    options = RunOptions(threads=cell.threads, target=cell.target)
    reason = runner().unsupported(artifact_format, options)
    if reason is None and cell.measure in ("latency", "sustain"):
        reason = machine.too_many(cell.threads)
    return reason


def decides(matrix: Matrix, measure: Measure) -> Mapping[str, object]:
    """What else the result of a cell depends on; part of its name."""
    if measure == "accuracy":
        return {
            "images": matrix.images,
            "skip_bad": matrix.skip_bad,
            "accuracy": matrix.accuracy,
            "decoding": matrix.decoding,
        }
    found: dict[str, object] = {"tier": matrix.latency.tier, "rounds": matrix.latency.rounds}
    if matrix.decoding:
        found["decoding"] = matrix.decoding
    if matrix.cpus:
        found["cpus"] = matrix.cpus
    if measure == "latency" and matrix.latency.pace:
        found["pace"] = matrix.latency.pace
    if measure == "sustain":
        found["seconds"] = matrix.latency.sustain
    return found
