"""Which prior learns what, and that decoding undoes the encoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.decode import decode
from harness.interfaces import MODELS, RawOutputs
from harness.records import Decoding
from models.training.matching import assign, corners, encode, match, pairwise_iou

PRIORS = MODELS.get("etinynet_ssd_lite")(("background", "disc"), width=0.35).priors


def some_boxes(seed: int, count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.8, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.02, 0.2, (count, 2))], 1).astype(np.float32)


def test_iou_by_hand() -> None:
    one = np.array([[0, 0, 2, 2]], np.float32)
    others = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [2, 2, 3, 3], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(pairwise_iou(one, others), [[1 / 7, 1, 0, 0]], rtol=1e-6)


def test_assign_by_hand() -> None:
    priors = np.array(
        [[0, 0, 0.2, 0.2], [0, 0, 0.24, 0.2], [0.5, 0.5, 0.7, 0.7], [0.8, 0.8, 1, 1]], np.float32
    )
    boxes = np.array([[0, 0, 0.2, 0.2], [0.55, 0.55, 0.6, 0.6]], np.float32)
    # prior 0 fits box 0, prior 1 overlaps it by 0.83, prior 2 is the best of box 1 (IoU 0.06)
    assert assign(boxes, priors, 0.5).tolist() == [0, 0, 1, -1]
    assert assign(boxes, priors, 0.9).tolist() == [0, -1, 1, -1]


def test_two_objects_with_one_best_prior_both_get_one() -> None:
    priors = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.9, 0.9]], np.float32)
    boxes = np.array([[0, 0, 0.5, 0.48], [0, 0, 0.5, 0.5]], np.float32)
    assert assign(boxes, priors, 0.5).tolist() == [1, 0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), least=st.floats(0.1, 0.9))
def test_every_object_is_matched(seed: int, count: int, least: float) -> None:
    boxes = some_boxes(seed, count)
    chosen = assign(boxes, corners(PRIORS), least)
    assert set(range(count)) <= set(chosen.tolist())
    iou = pairwise_iou(boxes, corners(PRIORS))
    background = chosen < 0
    assert np.all(iou.max(0)[background] < least)
    forced = np.flatnonzero(~background & (iou.max(0) < least))
    assert len(forced) <= count


def test_no_objects_is_all_background() -> None:
    targets = match(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), PRIORS, Decoding(), 0.5)
    assert not targets.labels.any()
    assert not targets.offsets.any()


def test_encode_by_hand() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    box = np.array([[0.45, 0.4, 0.65, 0.6]], np.float32)
    expected = [[0.05 / 0.2 / 0.1, 0, np.log(1) / 0.2, np.log(0.5) / 0.2]]
    np.testing.assert_allclose(encode(box, prior, Decoding()), expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_harness_decodes_what_we_encode(seed: int) -> None:
    boxes = some_boxes(seed, 6)
    labels = np.arange(6) % 3 + 1
    targets = match(boxes, labels, PRIORS, Decoding(), 0.5)
    logits = np.full((1, len(PRIORS), 4), -20, np.float32)
    logits[0, np.arange(len(PRIORS)), targets.labels] = 20
    found = decode(
        RawOutputs(logits, targets.offsets[None]),
        priors=PRIORS,
        decoding=Decoding(iou_threshold=0.99),
        sizes=[(100, 200)],
    )[0]
    scale = np.array([200, 100, 200, 100], np.float32)
    for box, label in zip(boxes * scale, labels, strict=True):
        distance = np.abs(found.boxes[found.labels == label] - box).max(axis=1)
        assert distance.min() < 0.02
