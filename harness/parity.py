"""Does an artifact compute what the float network does? Compared on real images, in two ways.

- **Heads**: per output, the largest error, that error relative to the largest magnitude, the ratio
  of signal to error (SQNR, dB) and the cosine. Thresholds by precision decide on these.
- **Detections**: after the same decoding on both sides, how many are matched, lost, new, moved or
  rescored. These tell a user what the error does; they do not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.boxes import iou as overlaps
from harness.errors import ParityFailed
from harness.interfaces import Detections, Outputs
from harness.records import Measurement

HEADS = ("logits", "offsets")
# SQNR is held within ±200 dB, beyond what float32 can tell (about 150 dB): 200 means equal, and
# infinity has no place in JSON.
SQNR_LIMIT_DB = 200.0

# A detection below this score is no loss and no news: at the 0.01 that mAP is computed with, most
# detections are noise that any rounding reshuffles.
SHOWN_SCORE = 0.3
# Detections of one class that overlap as much are a pair.
PAIRED_IOU = 0.5
# A matched pair overlapping less is "moved": 0.9 is one pixel on each side of a 40-pixel box.
STILL_IOU = 0.9
# A matched pair whose scores differ by more is "rescored".
SAME_SCORE = 0.1


class HeadError(NamedTuple):
    """How far one output is from the float network's, over all its values.

    Attributes:
        max_abs: largest absolute difference, in the output's own unit.
        relative: ``max_abs`` over the largest magnitude of the reference (over 1 where that is 0).
        sqnr_db: ``10 log10(sum(reference²) / sum(difference²))`` within ±`SQNR_LIMIT_DB`.
        cosine: of the two outputs as vectors; 1 where both are all zero, 0 where one is.
    """

    max_abs: float
    relative: float
    sqnr_db: float
    cosine: float


class DetectionChanges(NamedTuple):
    """Detections of the artifact against those of the float network, counted over images.

    Attributes:
        matched: pairs, at least one of the two shown (score ≥ `SHOWN_SCORE`).
        lost: shown detections of the reference without a partner.
        new: shown detections of the artifact without a partner.
        moved: matched pairs with IoU < `STILL_IOU`.
        rescored: matched pairs whose scores differ by more than `SAME_SCORE`.
    """

    matched: int
    lost: int
    new: int
    moved: int
    rescored: int


class Thresholds(NamedTuple):
    """What an artifact must reach to be measured: lowest SQNR per head, largest relative error;
    lowest `agreement` where only its detections can be compared.

    The cosine needs no threshold: an SQNR of s dB keeps it above ``sqrt(1 - 10 ** (-s / 10))``.
    """

    logits_sqnr_db: float
    offsets_sqnr_db: float
    relative: float
    agreement: float


# float32: exports that fold batch norms and reorder sums came out at 110 dB and more, with errors
# of 1e-5 relative; 60 dB and 1e-3 leave room for other kernels, none for a wrong layer.
# int8: good paths gave 28 to 40 dB, a broken one 4.4 dB on logits and 2.5 dB on offsets. 15 and
# 10 dB (cosine above 0.984 and 0.948) stand between; a single value may be far off, so the
# largest error decides nothing.
THRESHOLDS: dict[str, Thresholds] = {
    "float32": Thresholds(logits_sqnr_db=60.0, offsets_sqnr_db=60.0, relative=1e-3, agreement=0.99),
    "int8": Thresholds(
        logits_sqnr_db=15.0, offsets_sqnr_db=10.0, relative=float("inf"), agreement=0.5
    ),
}
ADVICE = {
    "float32": "a float export must equal its network, so check the exporter and the input layout",
    "int8": "calibrate on more images of the kind it will see, or quantize per channel",
}


def check(
    reference: Outputs,
    got: Outputs,
    reference_detections: Sequence[Detections],
    got_detections: Sequence[Detections],
    precision: Literal["float32", "int8"],
    names: Sequence[str] = HEADS,
) -> tuple[Measurement, ...]:
    """Measure the difference and refuse an artifact that is too far from its network.

    Args:
        reference: real-valued outputs of the float network.
        got: real-valued outputs of the artifact (see `harness.decode.dequantize`), same images.
        precision: chooses the `THRESHOLDS`.
        names: of the two heads, the one about classes first.

    Returns:
        ``parity.<head>.{max_abs,relative,sqnr_db,cosine}`` and
        ``parity.detections.{matched,lost,new,moved,rescored}``.

    Raises:
        ParityFailed: the first head that misses its threshold, with value and threshold; other
            shapes; values that are not finite.
    """
    heads = compare_heads(reference, got, names)
    found = measurements(heads, compare_detections(reference_detections, got_detections))
    try:
        enforce(heads, precision)
    except ParityFailed as error:
        error.measured = found
        raise
    return found


def check_detections(
    reference: Sequence[Detections],
    got: Sequence[Detections],
    precision: Literal["float32", "int8"],
) -> tuple[Measurement, ...]:
    """The same where an artifact answers detections alone.

    Returns:
        ``parity.detections.{agreement,matched,lost,new,moved,rescored}``.

    Raises:
        ParityFailed: the agreement is below the threshold.
    """
    changes = compare_detections(reference, got)
    agreed = agreement(reference, got)
    least = THRESHOLDS[precision].agreement
    if agreed < least:
        raise ParityFailed(
            f"detections agree to {agreed:.3f} (at least {least:g}) with the float network's"
            f" ({changes.lost} lost, {changes.new} new), too far for {precision}:"
            f" {ADVICE[precision]}"
        )
    count = sum(len(one.scores) for one in reference)
    measured = Measurement(
        metric="parity.detections.agreement",
        value=agreed,
        unit="1",
        conditions={"detections": count},
    )
    return (measured, *measurements({}, changes))


def agreement(reference: Sequence[Detections], got: Sequence[Detections]) -> float:
    """How much of two sets of detections is the same, 0..1, weighted by score; 1 where both are
    empty.

    Detections pair off as in `compare_detections`. A pair shares its overlap times the lower of
    its scores; the whole is the higher score of every pair and the score of everything unpaired.
    """
    shared = whole = 0.0
    for expected, found in zip(reference, got, strict=True):
        rows, columns, overlap = pairs(expected, found, PAIRED_IOU)
        one, two = expected.scores[rows].astype(float), found.scores[columns].astype(float)
        both = float(expected.scores.sum(dtype=float) + found.scores.sum(dtype=float))
        alone = max(both - float(one.sum() + two.sum()), 0.0)
        shared += float((overlap * np.minimum(one, two)).sum())
        whole += float(np.maximum(one, two).sum()) + alone
    return min(shared / whole, 1.0) if whole else 1.0


def compare_heads(
    reference: Outputs, got: Outputs, names: Sequence[str] = HEADS
) -> dict[str, HeadError]:
    """`HeadError` of each output by its name.

    Raises:
        ParityFailed: other shapes, or values that are not finite.
    """
    return {
        head: _head_error(head, expected, values)
        for head, expected, values in zip(names, reference, got, strict=True)
    }


def enforce(heads: dict[str, HeadError], precision: Literal["float32", "int8"]) -> None:
    """Hold two ``heads``, the one about classes first, against the thresholds of ``precision``.

    Raises:
        ParityFailed: one sentence with head, value and threshold.
    """
    limits = THRESHOLDS[precision]
    for (head, error), least in zip(heads.items(), limits[:2], strict=True):
        missed = []
        if error.sqnr_db < least:
            missed.append(f"an SQNR of {error.sqnr_db:.1f} dB (at least {least:g} dB)")
        if error.relative > limits.relative:
            missed.append(f"a relative error of {error.relative:.2g} (at most {limits.relative:g})")
        if missed:
            raise ParityFailed(
                f"{head} have {' and '.join(missed)} against the float network,"
                f" too far for {precision}: {ADVICE[precision]}"
            )


def compare_detections(
    reference: Sequence[Detections], got: Sequence[Detections], iou: float = PAIRED_IOU
) -> DetectionChanges:
    """Count what changed, image by image.

    Within an image, detections of the same class with at least ``iou`` pair off one to one, the
    best overlap first. All detections take part, so one that fell from 0.31 to 0.29 is matched
    and not lost.
    """
    if len(reference) != len(got):
        raise ParityFailed(
            f"the artifact answered for {len(got)} images, the float network for"
            f" {len(reference)}: run both on the same images"
        )
    counts = np.zeros(len(DetectionChanges._fields), dtype=np.int64)
    for expected, found in zip(reference, got, strict=True):
        counts += _changes(expected, found, iou)
    return DetectionChanges(*counts.tolist())


def measurements(heads: dict[str, HeadError], changes: DetectionChanges) -> tuple[Measurement, ...]:
    """Both comparisons as measurements."""
    of_heads = [
        Measurement(
            metric=f"parity.{head}.{name}", value=value, unit="dB" if name == "sqnr_db" else "1"
        )
        for head, error in heads.items()
        for name, value in error._asdict().items()
    ]
    rules = {"shown_score": SHOWN_SCORE, "still_iou": STILL_IOU, "same_score": SAME_SCORE}
    of_detections = [
        Measurement(
            metric=f"parity.detections.{name}", value=float(value), unit="1", conditions=rules
        )
        for name, value in changes._asdict().items()
    ]
    return (*of_heads, *of_detections)


def _head_error(head: str, reference: NDArray[Any], got: NDArray[Any]) -> HeadError:
    if reference.shape != got.shape:
        raise ParityFailed(
            f"{head} have shape {got.shape}, the float network's {reference.shape}:"
            " check the order of the outputs in the manifest"
        )
    for owner, values in (("the float network's", reference), ("the artifact's", got)):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ParityFailed(
                f"{owner} {head} hold {len(bad)} values that are not finite (NaN or infinite), the"
                f" first at (image, prior, channel) {tuple(bad[0].tolist())}: its weights, its"
                " export or its runtime is broken"
            )
    one, two = reference.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    error = two - one
    max_abs = float(np.abs(error).max(initial=0.0))
    peak = float(np.abs(one).max(initial=0.0))
    norms = float(np.linalg.norm(one)), float(np.linalg.norm(two))
    return HeadError(
        max_abs=max_abs,
        relative=max_abs / peak if peak else max_abs,
        sqnr_db=decibels(float(one @ one), float(error @ error)),
        cosine=float(one @ two) / (norms[0] * norms[1])
        if all(norms)
        else float(norms[0] == norms[1]),
    )


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` within the limit; silence without error counts as equal."""
    if noise == 0:
        return SQNR_LIMIT_DB
    if signal == 0:
        return -SQNR_LIMIT_DB
    return float(np.clip(10 * np.log10(signal / noise), -SQNR_LIMIT_DB, SQNR_LIMIT_DB))


def _changes(expected: Detections, found: Detections, least: float) -> NDArray[np.int64]:
    """Counts of one image, in the order of `DetectionChanges`."""
    rows, columns, overlap = pairs(expected, found, least)
    shown = expected.scores >= SHOWN_SCORE, found.scores >= SHOWN_SCORE
    counted = shown[0][rows] | shown[1][columns]
    moved = counted & (overlap < STILL_IOU)
    change = np.abs(expected.scores[rows].astype(np.float64) - found.scores[columns])
    lost = shown[0].sum() - shown[0][rows].sum()
    new = shown[1].sum() - shown[1][columns].sum()
    rescored = counted & (change > SAME_SCORE)
    return np.array([counted.sum(), lost, new, moved.sum(), rescored.sum()], dtype=np.int64)


def pairs(
    expected: Detections, found: Detections, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Index pairs of one class and their overlap, at least ``least``: one to one.

    The best overlap goes first, then the order given.
    """
    overlap = overlaps(expected.boxes, found.boxes)
    overlap[expected.labels[:, None] != found.labels] = -1.0
    rows, columns = np.nonzero(overlap >= least)
    best = np.argsort(-overlap[rows, columns], kind="stable")
    free = np.ones(len(expected.scores), dtype=np.bool_), np.ones(len(found.scores), dtype=np.bool_)
    taken = []
    for row, column in zip(rows[best].tolist(), columns[best].tolist(), strict=True):
        if free[0][row] and free[1][column]:
            free[0][row] = free[1][column] = False
            taken.append((row, column))
    chosen = np.array(taken, dtype=np.int64).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1], overlap[chosen[:, 0], chosen[:, 1]]
