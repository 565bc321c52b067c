"""Parity: figures worked out by hand, thresholds that decide, and what each refusal says."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParityFailed
from harness.interfaces import Detections, RawOutputs
from harness.parity import (
    SQNR_LIMIT_DB,
    THRESHOLDS,
    DetectionChanges,
    check,
    compare_detections,
    compare_heads,
)

Precision = Literal["float32", "int8"]


def heads(seed: int = 0, images: int = 2) -> RawOutputs:
    rng = np.random.default_rng(seed)
    return RawOutputs(
        rng.normal(0, 3, (images, 40, 5)).astype(np.float32),
        rng.normal(0, 1, (images, 40, 4)).astype(np.float32),
    )


def at_sqnr(values: np.ndarray, decibels: float, seed: int = 1) -> np.ndarray:
    """``values`` plus noise of exactly that SQNR."""
    noise = np.random.default_rng(seed).normal(0, 1, values.shape)
    power = float((values.astype(float) ** 2).sum() / (noise**2).sum())
    return values + noise * math.sqrt(power * 10 ** (-decibels / 10))


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.int64),
        table[:, 5].astype(np.float32),
    )


def judge(reference: RawOutputs, got: RawOutputs, precision: Precision) -> dict[str, float | None]:
    measured = check(reference, got, [found()], [found()], precision)
    return {item.metric: item.value for item in measured}


def test_a_hand_computed_head() -> None:
    reference = RawOutputs(np.array([[[3.0, 4.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]]))
    got = RawOutputs(np.array([[[3.0, 4.5]]]), np.array([[[0.0, 1.0, 0.0, 0.0]]]))
    errors = compare_heads(reference, got)
    logits, offsets = errors["logits"], errors["offsets"]
    assert logits.max_abs == 0.5
    assert logits.relative == 0.125
    assert logits.sqnr_db == pytest.approx(20.0)  # 25 against 0.25
    assert logits.cosine == pytest.approx((9 + 18) / (5 * math.hypot(3, 4.5)))
    assert offsets.cosine == 0.0
    assert offsets.sqnr_db == pytest.approx(10 * math.log10(1 / 2))


def test_equal_outputs_are_at_the_limit_that_json_can_hold() -> None:
    same = compare_heads(heads(), heads())["logits"]
    assert same[:3] == (0.0, 0.0, SQNR_LIMIT_DB)
    assert same.cosine == pytest.approx(1.0)
    silence = RawOutputs(np.zeros((1, 3, 2)), np.zeros((1, 3, 4)))
    assert compare_heads(silence, silence)["logits"] == (0.0, 0.0, SQNR_LIMIT_DB, 1.0)
    noise = RawOutputs(np.ones((1, 3, 2)), np.ones((1, 3, 4)))
    assert compare_heads(silence, noise)["logits"] == (1.0, 1.0, -SQNR_LIMIT_DB, 0.0)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("head", ["logits", "offsets"])
def test_the_sqnr_threshold_decides_per_head(precision: Precision, head: str) -> None:
    reference = heads()
    least = getattr(THRESHOLDS[precision], f"{head}_sqnr_db")
    above = reference._replace(**{head: at_sqnr(getattr(reference, head), least + 0.1)})
    below = reference._replace(**{head: at_sqnr(getattr(reference, head), least - 0.1)})
    if precision == "int8":
        assert judge(reference, above, precision)[f"parity.{head}.sqnr_db"] == pytest.approx(
            least + 0.1
        )
    with pytest.raises(ParityFailed, match=rf"^{head} have an SQNR of \d+\.\d dB \(at least"):
        judge(reference, below, precision)


def test_one_wrong_value_fails_a_float_export_and_not_an_int8_one() -> None:
    reference = heads()
    got = RawOutputs(reference.logits.copy(), reference.offsets)
    got.logits[0, 0, 0] += 0.002 * np.abs(reference.logits).max()
    assert judge(reference, got, "int8")["parity.logits.sqnr_db"] > 60
    with pytest.raises(ParityFailed, match=r"relative error of 0\.002 \(at most 0\.001\)"):
        judge(reference, got, "float32")


def test_rounding_of_another_kernel_passes_as_float() -> None:
    reference = heads()
    rng = np.random.default_rng(2)
    got = RawOutputs(*(head * (1 + rng.normal(0, 1e-5, head.shape)) for head in reference))
    values = judge(reference, got, "float32")
    assert values["parity.logits.sqnr_db"] == pytest.approx(100, abs=2)


@pytest.mark.parametrize("decibels", [28.0, 34.6, 40.0])
def test_good_int8_passes(decibels: float) -> None:
    reference = heads()
    got = RawOutputs(*(at_sqnr(head, decibels) for head in reference))
    assert judge(reference, got, "int8")["parity.offsets.sqnr_db"] == pytest.approx(decibels)


def test_broken_int8_fails() -> None:
    reference = heads()
    got = RawOutputs(*(at_sqnr(head, 4.4) for head in reference))
    with pytest.raises(
        ParityFailed, match=r"logits have an SQNR of 4\.4 dB .* calibrate"
    ) as failed:
        judge(reference, got, "int8")
    figures = {one.metric: one.value for one in failed.value.measured}
    assert figures["parity.offsets.sqnr_db"] == pytest.approx(4.4)


@given(st.floats(0.1, 60), st.integers(0, 1000))
def test_sqnr_bounds_the_cosine(decibels: float, seed: int) -> None:
    """Why the cosine has no threshold of its own."""
    reference = heads(seed)
    error = compare_heads(reference, reference._replace(logits=at_sqnr(reference.logits, decibels)))
    bound = math.sqrt(max(0.0, 1 - 10 ** (-error["logits"].sqnr_db / 10)))
    assert error["logits"].cosine >= bound - 1e-9


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(bad: float) -> None:
    reference, got = heads(), heads()
    got.offsets[1, 7, 2] = bad
    got.offsets[1, 9, 0] = bad
    with pytest.raises(ParityFailed, match=r"artifact's offsets hold 2 values .* \(1, 7, 2\)"):
        judge(reference, got, "int8")
    with pytest.raises(ParityFailed, match="the float network's offsets hold 2 values"):
        judge(got, reference, "int8")


def test_other_shapes_are_refused() -> None:
    swapped = RawOutputs(heads().offsets, heads().logits)
    with pytest.raises(ParityFailed, match=r"logits have shape \(2, 40, 4\).*\(2, 40, 5\)"):
        judge(heads(), swapped, "float32")


def test_metrics_are_named_and_carry_their_rules() -> None:
    measured = check(heads(), heads(), [found()], [found()], "float32")
    assert [item.metric for item in measured] == [
        *(
            f"parity.{head}.{name}"
            for head in ("logits", "offsets")
            for name in ("max_abs", "relative", "sqnr_db", "cosine")
        ),
        *(f"parity.detections.{name}" for name in DetectionChanges._fields),
    ]
    assert {item.unit for item in measured if item.metric.endswith("sqnr_db")} == {"dB"}
    assert measured[-1].conditions == {"shown_score": 0.3, "still_iou": 0.9, "same_score": 0.1}


BOX = (0.0, 0.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("reference", "got", "expected"),
    [
        ([(*BOX, 1, 0.8)], [(*BOX, 1, 0.75)], (1, 0, 0, 0, 0)),
        ([(*BOX, 1, 0.8)], [], (0, 1, 0, 0, 0)),
        ([], [(*BOX, 1, 0.8)], (0, 0, 1, 0, 0)),
        ([(*BOX, 1, 0.8)], [(*BOX, 2, 0.8)], (0, 1, 1, 0, 0)),  # another class
        ([(*BOX, 1, 0.29)], [], (0, 0, 0, 0, 0)),  # never shown
        ([(*BOX, 1, 0.31)], [(*BOX, 1, 0.29)], (1, 0, 0, 0, 0)),  # fell below, not lost
        ([(*BOX, 1, 0.2)], [(*BOX, 1, 0.25)], (0, 0, 0, 0, 0)),  # a pair nobody sees
        ([(*BOX, 1, 0.8)], [(*BOX, 1, 0.69)], (1, 0, 0, 0, 1)),
        ([(*BOX, 1, 0.8)], [(11.0, 0.0, 100.0, 100.0, 1, 0.8)], (1, 0, 0, 1, 0)),  # IoU .89
        ([(*BOX, 1, 0.8)], [(9.0, 0.0, 100.0, 100.0, 1, 0.8)], (1, 0, 0, 0, 0)),  # IoU .91
        ([(*BOX, 1, 0.8)], [(51.0, 0.0, 100.0, 100.0, 1, 0.8)], (0, 1, 1, 0, 0)),  # IoU .49
    ],
)
def test_what_each_change_is_called(
    reference: list[tuple[float, float, float, float, int, float]],
    got: list[tuple[float, float, float, float, int, float]],
    expected: tuple[int, ...],
) -> None:
    assert compare_detections([found(*reference)], [found(*got)]) == expected


def test_pairs_are_one_to_one_and_the_best_overlap_goes_first() -> None:
    """The better scored detection of the reference does not take the other one's partner."""
    reference = [found((0, 0, 100, 100, 1, 0.9), (20, 0, 120, 100, 1, 0.8))]
    got = [found((20, 0, 120, 100, 1, 0.85))]
    assert compare_detections(reference, got) == (1, 1, 0, 0, 0)


def test_counts_add_up_over_images_and_images_do_not_mix() -> None:
    one, other = found((*BOX, 1, 0.8)), found((200.0, 0.0, 300.0, 100.0, 1, 0.8))
    assert compare_detections([one, other, found()], [other, other, one]) == (1, 1, 2, 0, 0)
    with pytest.raises(ParityFailed, match="answered for 1 images, the float network for 2"):
        compare_detections([one, other], [one])


detections = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.integers(0, 6),
        st.integers(1, 6),
        st.integers(1, 6),
        st.integers(1, 2),
        st.integers(1, 9),
    ),
    max_size=8,
).map(
    lambda rows: found(
        *[(float(x), float(y), float(x + w), float(y + h), k, s / 10) for x, y, w, h, k, s in rows]
    )
)


@given(detections, detections)
def test_swapping_the_sides_swaps_lost_and_new(one: Detections, two: Detections) -> None:
    there, back = compare_detections([one], [two]), compare_detections([two], [one])
    shown = int((one.scores >= 0.3).sum()), int((two.scores >= 0.3).sum())
    assert there.lost <= shown[0]
    assert there.new <= shown[1]
    assert there.matched <= shown[0] + shown[1]
    assert there.moved <= there.matched
    assert there.rescored <= there.matched
    assert compare_detections([one], [one]) == (shown[0], 0, 0, 0, 0)
    if len(one.scores) < 2 or len(two.scores) < 2:  # no tied choice of partners
        assert (there.lost, there.new) == (back.new, back.lost)
