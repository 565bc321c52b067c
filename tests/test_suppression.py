"""What non-maximum suppression promises, hard and soft, whatever the boxes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import boxes as geometry
from harness.records import Decoding
from harness.suppression import hard, soft

Ranked = tuple[np.ndarray, np.ndarray, np.ndarray]

lattice = st.integers(0, 8).map(lambda value: value / 8)


def _ranked(rows: list[tuple[float, float, float, float, int, float]]) -> Ranked:
    rows = sorted(rows, key=lambda row: -row[5])
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _, _ in rows]
    return (
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([row[4] for row in rows], np.int64),
        np.array([row[5] for row in rows], np.float32),
    )


ranked_boxes = st.lists(
    st.tuples(
        lattice,
        lattice,
        lattice,
        lattice,
        st.integers(1, 3),
        st.integers(1, 16).map(lambda value: value / 16),
    ),
    max_size=25,
).map(_ranked)
thresholds = st.sampled_from([0.0, 0.25, 0.45, 0.5, 0.75, 1.0])
soft_policies = st.builds(
    Decoding,
    suppression=st.sampled_from(["soft-linear", "soft-gaussian"]),
    iou_threshold=thresholds,
    sigma=st.sampled_from([0.1, 0.5, 2.0]),
    score_threshold=st.sampled_from([0.0, 0.01, 0.06]),
    max_detections=st.just(None),
)


def rule(iou_threshold: float, limit: int | None = None, per_class: int | None = None) -> Decoding:
    return Decoding(iou_threshold=iou_threshold, max_detections=limit, max_per_class=per_class)


def test_overlap_at_the_threshold_stays() -> None:
    """IoU of exactly 1/2; the boxes are dyadic, so nothing is rounded."""
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]])
    labels = np.array([1, 1])
    assert hard(boxes, labels, rule(0.5)).tolist() == [0, 1]
    assert hard(boxes, labels, rule(float(np.nextafter(0.5, 0)))).tolist() == [0]


def test_an_epsilon_weakens_the_suppression_of_small_boxes() -> None:
    """IoU 1/2 of boxes of 1/64 by 1/64: with 1e-5 it falls to 0.482."""
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]]) / 64
    labels = np.array([1, 1])
    weaker = Decoding(iou_threshold=0.49, iou_epsilon=1e-5)
    assert hard(boxes, labels, rule(0.49)).tolist() == [0]
    assert hard(boxes, labels, weaker).tolist() == [0, 1]


@settings(max_examples=100)
@given(ranked_boxes, thresholds)
def test_survivors_do_not_suppress_each_other_and_the_rest_is_suppressed(
    ranked: Ranked, threshold: float
) -> None:
    boxes, labels, _ = ranked
    kept = hard(boxes, labels, rule(threshold))
    overlap = geometry.iou(boxes, boxes)
    clash = (overlap > threshold) & (labels[:, None] == labels)
    assert not any(clash[one, two] for one, two in itertools.combinations(kept.tolist(), 2))
    for gone in set(range(len(boxes))) - set(kept.tolist()):
        assert clash[kept[kept < gone], gone].any()


@settings(max_examples=100)
@given(ranked_boxes, thresholds, st.integers(1, 6))
def test_suppression_is_idempotent_and_limits_only_shorten_it(
    ranked: Ranked, threshold: float, limit: int
) -> None:
    boxes, labels, _ = ranked
    kept = hard(boxes, labels, rule(threshold))
    again = hard(boxes[kept], labels[kept], rule(threshold))
    assert again.tolist() == list(range(len(kept)))
    assert hard(boxes, labels, rule(threshold, limit)).tolist() == kept[:limit].tolist()
    nth = [int((labels[kept[:place]] == labels[index]).sum()) for place, index in enumerate(kept)]
    first = [index for index, before in zip(kept.tolist(), nth, strict=True) if before < limit]
    assert hard(boxes, labels, rule(threshold, per_class=limit)).tolist() == first


@settings(max_examples=100)
@given(ranked_boxes, thresholds, st.integers(1, 16))
def test_a_higher_score_threshold_leaves_what_cutting_afterwards_leaves(
    ranked: Ranked, threshold: float, least: int
) -> None:
    """So a policy needs one threshold for mAP, and an application may cut where it likes."""
    boxes, labels, scores = ranked
    after = hard(boxes, labels, rule(threshold))
    after = after[scores[after] >= least / 16]
    first = scores >= least / 16  # best first, so these stand at the front
    assert hard(boxes[first], labels[first], rule(threshold)).tolist() == after.tolist()


@settings(max_examples=100)
@given(ranked_boxes, soft_policies)
def test_soft_suppression_never_raises_a_score_and_never_answers_twice(
    ranked: Ranked, policy: Decoding
) -> None:
    boxes, labels, scores = ranked
    scores = scores[scores > policy.score_threshold]
    boxes, labels = boxes[: len(scores)], labels[: len(scores)]
    kept, lowered = soft(boxes, labels, scores, policy)
    assert len(set(kept.tolist())) == len(kept)
    assert (lowered <= scores[kept]).all()
    assert (lowered > np.float32(policy.score_threshold)).all() or policy.score_threshold == 0
    assert (np.diff(lowered) <= 0).all()
    for label in np.unique(labels):  # the best of each class keeps its score
        best = int(np.flatnonzero(labels == label)[0])
        assert lowered[kept.tolist().index(best)] == scores[best]


@settings(max_examples=100)
@given(ranked_boxes, soft_policies, st.integers(1, 6))
def test_limits_only_shorten_soft_suppression(ranked: Ranked, policy: Decoding, limit: int) -> None:
    boxes, labels, scores = ranked
    plain = {name: getattr(policy, name) for name in policy.__struct_fields__}
    whole = soft(boxes, labels, scores, policy)
    short = soft(boxes, labels, scores, Decoding(**{**plain, "max_detections": limit}))
    assert short[0].tolist() == whole[0][:limit].tolist()
    assert short[1].tolist() == whole[1][:limit].tolist()


@pytest.mark.parametrize("suppression", ["soft-linear", "soft-gaussian"])
def test_soft_suppression_leaves_boxes_apart_alone(suppression: str) -> None:
    boxes = np.array([[0, 0, 1, 1], [2, 0, 3, 1], [0, 0, 1, 1]], float)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    policy = Decoding(suppression=suppression)  # type: ignore[arg-type]  # one of the two
    kept, lowered = soft(boxes, np.array([1, 1, 2]), scores, policy)
    assert kept.tolist() == [0, 1, 2]
    assert lowered.tolist() == scores.tolist()


def test_soft_scores_by_hand() -> None:
    """IoU 1/2: linear halves, Gaussian multiplies by exp(-0.25 / 0.5); a box alone keeps its."""
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5], [4, 4, 5, 5]])
    scores = np.array([0.8, 0.6, 0.4], np.float32)
    labels = np.ones(3, np.int64)
    kept, linear = soft(boxes, labels, scores, Decoding(suppression="soft-linear"))
    assert kept.tolist() == [0, 2, 1]
    assert linear == pytest.approx([0.8, 0.4, 0.3])
    kept, gaussian = soft(boxes, labels, scores, Decoding(suppression="soft-gaussian"))
    assert kept.tolist() == [0, 2, 1]
    assert gaussian == pytest.approx([0.8, 0.4, 0.6 * np.exp(-0.5)])


def test_survivors_behind_many_suppressed_boxes_are_found() -> None:
    """The best boxes are tried first; where nearly all are one object, the rest must follow."""
    boxes = np.array([[0, 0, 1, 1]] * 500 + [[2, 0, 3, 1], [4, 0, 5, 1], [6, 0, 7, 1]], float)
    labels = np.ones(503, np.int64)
    for limit, expected in (
        (1, [0]),
        (2, [0, 500]),
        (3, [0, 500, 501]),
        (None, [0, *range(500, 503)]),
    ):
        assert hard(boxes, labels, rule(0.45, limit)).tolist() == expected


def test_nothing_in_nothing_out() -> None:
    none = np.zeros((0, 4)), np.zeros(0, np.int64)
    assert hard(*none, Decoding()).tolist() == []
    kept, lowered = soft(*none, np.zeros(0, np.float32), Decoding(suppression="soft-linear"))
    assert (kept.tolist(), lowered.tolist(), lowered.dtype) == ([], [], np.float32)
