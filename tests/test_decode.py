"""Decoding against a slow, obvious implementation, and the properties it must have."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness import boxes as geometry
from harness.decode import class_scores, decode, dequantize
from harness.errors import BadInput
from harness.interfaces import Detections, RawOutputs
from harness.records import Decoding, TensorSpec
from tests.slow_decoding import random_case, slow_decode


@pytest.mark.slow
def test_equals_the_slow_implementation_on_thousands_of_cases_with_ties() -> None:
    """Hard and soft, every limit, every kind of clipping; soft scores to float rounding."""
    rng = np.random.default_rng(0)
    found: Counter[str] = Counter()
    for case in range(1500):
        outputs, priors, decoding = random_case(rng)
        size = (int(rng.integers(1, 500)), int(rng.integers(1, 500)))
        (got,) = decode(outputs, priors=priors, decoding=decoding, sizes=[size])
        expected = slow_decode(outputs.logits[0], outputs.offsets[0], priors, decoding, size)
        assert got.labels.tolist() == [label for _, label, _ in expected], case
        assert got.boxes.tolist() == [box for _, _, box in expected], case
        scores = [score for score, _, _ in expected]
        assert got.scores.tolist() == (
            scores if decoding.suppression == "hard" else pytest.approx(scores, rel=1e-6)
        ), case
        found[decoding.suppression] += len(expected)
        found[decoding.clip] += len(expected)
    assert len(found) == 6
    assert min(found.values()) > 2_000, found  # the cases are not empty ones


def test_equals_the_slow_implementation_on_a_head_of_real_size() -> None:
    rng = np.random.default_rng(1)
    priors = np.concatenate([rng.uniform(0, 1, (3000, 2)), rng.uniform(0.05, 0.4, (3000, 2))], 1)
    logits = rng.normal(0, 1.5, (1, 3000, 11))
    logits[..., 0] += 4
    outputs = RawOutputs(logits.astype("f4"), rng.normal(0, 1, (1, 3000, 4)).astype("f4"))
    decoding = Decoding()
    (got,) = decode(outputs, priors=priors.astype("f4"), decoding=decoding, sizes=[(300, 400)])
    expected = slow_decode(
        outputs.logits[0], outputs.offsets[0], priors.astype("f4"), decoding, (300, 400)
    )
    assert len(expected) == 100
    assert got.labels.tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(got.boxes, [box for _, _, box in expected], rtol=1e-6)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_scores_are_softmax_or_sigmoid_without_the_background(score: str) -> None:
    logits = np.random.default_rng(2).normal(0, 30, (5, 400)).astype(np.float32)
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=0))
    expected = powers / powers.sum(axis=0) if score == "softmax" else 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(class_scores(logits, score), expected[1:], atol=1e-6)


def one_image(
    boxes: list[tuple[float, float, float, float]],
    scores: list[float],
    labels: list[int] | None = None,
    **decoding: float,
) -> Detections:
    """Decode boxes given in pixels of a 100 × 100 image, with sigmoid scores of two classes."""
    corners = np.array(boxes, np.float64) / 100
    priors = geometry.to_centers(corners).astype(np.float32)
    logits = np.full((1, len(boxes), 3), -20.0, np.float32)
    for row, (score, label) in enumerate(zip(scores, labels or [1] * len(boxes), strict=True)):
        logits[0, row, label] = np.log(score / (1 - score))
    policy = Decoding(score="sigmoid", **decoding)  # type: ignore[arg-type]  # fields by keyword
    outputs = RawOutputs(logits, np.zeros((1, len(boxes), 4), np.float32))
    return decode(outputs, priors=priors, decoding=policy, sizes=[(100, 100)])[0]


def test_the_better_of_two_overlapping_boxes_stays() -> None:
    got = one_image([(0, 0, 50, 50), (5, 0, 55, 50)], [0.6, 0.9])
    assert got.boxes.round(3).tolist() == [[5, 0, 55, 50]]


def test_classes_do_not_suppress_each_other() -> None:
    got = one_image([(0, 0, 50, 50), (0, 0, 50, 50)], [0.6, 0.9], labels=[1, 2])
    assert got.labels.tolist() == [2, 1]


def test_touching_boxes_of_neighbouring_classes_and_of_one_class_all_stay() -> None:
    boxes = [(0, 0, 50, 50), (50, 0, 100, 50), (0, 50, 50, 100), (50, 50, 100, 100)]
    got = one_image(boxes, [0.9, 0.8, 0.7, 0.6], iou_threshold=0.0)
    assert len(got.scores) == 4
    mixed = one_image(boxes * 2, [0.9, 0.8, 0.7, 0.6] * 2, [1] * 4 + [2] * 4, iou_threshold=0.0)
    assert len(mixed.scores) == 8


def test_a_suppressed_box_suppresses_nothing() -> None:
    got = one_image([(0, 0, 40, 40), (15, 0, 55, 40), (30, 0, 70, 40)], [0.9, 0.8, 0.7])
    assert got.boxes[:, 0].round(3).tolist() == [0, 30]


def test_ties_are_ordered_by_prior_then_class() -> None:
    boxes = [(60, 0, 80, 20), (0, 0, 20, 20), (30, 0, 50, 20)]
    got = one_image(boxes, [0.5, 0.5, 0.5], labels=[2, 1, 2])
    assert got.boxes[:, 0].round(3).tolist() == [60, 0, 30]


def test_a_tie_at_the_candidate_limit_is_cut_by_prior() -> None:
    boxes = [(20 * i, 0, 20 * i + 10, 10) for i in range(4)]
    got = one_image(boxes, [0.5, 0.5, 0.9, 0.5], candidates=2)
    assert got.boxes[:, 0].round(3).tolist() == [40, 0]


def test_boxes_are_clipped_and_those_outside_are_dropped() -> None:
    got = one_image([(-10, 20, 30, 130), (110, 10, 150, 20), (0, 0, 10, 10)], [0.9, 0.8, 0.7])
    np.testing.assert_allclose(got.boxes, [[0, 20, 30, 100], [0, 0, 10, 10]], atol=1e-4)


def test_boxes_are_scaled_to_each_image() -> None:
    priors = np.array([[0.5, 0.5, 0.5, 0.25]], np.float32)
    logits = np.array([[[0, 9]], [[0, 9]]], np.float32)
    outputs = RawOutputs(logits, np.zeros((2, 1, 4), np.float32))
    got = decode(outputs, priors=priors, decoding=Decoding(), sizes=[(80, 40), (800, 1000)])
    assert got[0].boxes.tolist() == [[10, 30, 30, 50]]
    assert got[1].boxes.tolist() == [[250, 300, 750, 500]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("threshold", [0.0, 0.01])
def test_values_that_are_not_finite_make_no_detection(bad: float, threshold: float) -> None:
    decoding = Decoding(score_threshold=threshold)
    priors = np.array([[0.5, 0.5, 0.5, 0.5]] * 2, np.float32)
    good = RawOutputs(np.array([[[0, 9], [0, 8]]], "f4"), np.zeros((1, 2, 4), "f4"))
    for where in ("logits", "offsets"):
        broken = RawOutputs(good.logits.copy(), good.offsets.copy())
        getattr(broken, where)[0, 0] = bad
        (got,) = decode(broken, priors=priors, decoding=decoding, sizes=[(10, 10)])
        assert np.isfinite(got.boxes).all()
        assert len(got.scores) == 1


def test_quantized_outputs_are_dequantized_by_their_tensors() -> None:
    rng = np.random.default_rng(3)
    tensors = (
        TensorSpec(
            name="l", dtype="int8", shape=(2, 60, 4), layout="NPC", scale=0.11, zero_point=-7
        ),
        TensorSpec(
            name="o", dtype="uint8", shape=(2, 60, 4), layout="NPC", scale=0.04, zero_point=120
        ),
    )
    quantized = RawOutputs(
        rng.integers(-128, 128, (2, 60, 4)).astype(np.int8),
        rng.integers(0, 256, (2, 60, 4)).astype(np.uint8),
    )
    real = RawOutputs(
        ((quantized.logits.astype("f4") + 7) * np.float32(0.11)),
        ((quantized.offsets.astype("f4") - 120) * np.float32(0.04)),
    )
    priors = rng.uniform(0.1, 0.9, (60, 4)).astype(np.float32)
    sizes = [(30, 40), (50, 20)]
    got = decode(quantized, priors=priors, decoding=Decoding(), sizes=sizes, tensors=tensors)
    expected = decode(real, priors=priors, decoding=Decoding(), sizes=sizes)
    assert sum(len(image.scores) for image in expected) > 20
    for one, two in zip(got, expected, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, two, strict=True))


def test_a_float_tensor_is_left_as_it_is() -> None:
    values = np.ones((2, 3), np.float32)
    assert dequantize(values, None) is values
    spec = TensorSpec(name="l", dtype="float32", shape=(2, 3), layout="NPC")
    assert dequantize(values, spec) is values


def test_the_answer_of_a_batch_is_that_of_its_images() -> None:
    rng = np.random.default_rng(4)
    outputs = RawOutputs(
        rng.normal(0, 2, (3, 50, 4)).astype("f4"), rng.normal(0, 1, (3, 50, 4)).astype("f4")
    )
    priors = rng.uniform(0.1, 0.9, (50, 4)).astype(np.float32)
    sizes = [(30, 40), (50, 20), (10, 10)]
    batch = decode(outputs, priors=priors, decoding=Decoding(), sizes=sizes)
    for index, size in enumerate(sizes):
        alone = RawOutputs(outputs.logits[index, None], outputs.offsets[index, None])
        (one,) = decode(alone, priors=priors, decoding=Decoding(), sizes=[size])
        assert all(np.array_equal(*pair) for pair in zip(one, batch[index], strict=True))


def test_nothing_found_has_the_right_shapes() -> None:
    got = one_image([(0, 0, 10, 10)], [0.001])
    assert [part.shape for part in got] == [(0, 4), (0,), (0,)]
    assert [part.dtype for part in got] == [np.float32, np.int64, np.float32]


def test_a_flat_head_gives_each_class_its_first_priors() -> None:
    """All scores equal, as the null runner answers: every class is cut at the same prior."""
    priors = np.full((300, 4), 0.1, np.float32)
    priors[:, 0] = np.linspace(0, 30, 300)  # no two overlap; those beyond 1.05 lie outside
    outputs = RawOutputs(np.zeros((1, 300, 3), "f4"), np.zeros((1, 300, 4), "f4"))
    decoding = Decoding(candidates=5)
    (got,) = decode(outputs, priors=priors, decoding=decoding, sizes=[(10, 10)])
    assert got.labels.tolist() == [1, 2] * 5
    assert got.boxes[:, 2].tolist() == sorted(got.boxes[:, 2].tolist())


@pytest.mark.parametrize(
    ("logits", "offsets", "images"),
    [
        ((1, 5, 3), (1, 6, 4), 1),
        ((1, 6, 3), (1, 6, 3), 1),
        ((6, 3), (6, 4), 1),
        ((1, 6, 4), (1, 6, 3), 1),
        ((1, 6, 1), (1, 6, 4), 1),
        ((1, 6, 3), (1, 6, 4), 2),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    logits: tuple[int, ...], offsets: tuple[int, ...], images: int
) -> None:
    outputs = RawOutputs(np.zeros(logits, "f4"), np.zeros(offsets, "f4"))
    priors = np.full((6, 4), 0.5, np.float32)
    with pytest.raises(BadInput, match=rf"expected \({images}, 6, classes\)"):
        decode(outputs, priors=priors, decoding=Decoding(), sizes=[(10, 10)] * images)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_priors_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (1, 60, 4)).astype(np.float32)
    offsets = rng.normal(0, 1, (1, 60, 4)).astype(np.float32)
    priors = rng.uniform(0.1, 0.9, (60, 4)).astype(np.float32)
    shuffled = rng.permutation(60)
    (one,) = decode(
        RawOutputs(logits, offsets), priors=priors, decoding=Decoding(), sizes=[(30, 40)]
    )
    (two,) = decode(
        RawOutputs(logits[:, shuffled], offsets[:, shuffled]),
        priors=priors[shuffled],
        decoding=Decoding(),
        sizes=[(30, 40)],
    )
    assume(len(np.unique(one.scores)) == len(one.scores))  # equal ones keep the priors' order
    assert all(np.array_equal(*pair) for pair in zip(one, two, strict=True))
