"""Box arithmetic against hand-computed values and its own algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness import boxes as geometry

coordinate = st.floats(-50, 50, width=32)
corner_boxes = st.integers(0, 6).flatmap(
    lambda n: arrays(np.float32, (n, 4), elements=coordinate).map(
        lambda b: np.concatenate(
            [np.minimum(b[:, :2], b[:, 2:]), np.maximum(b[:, :2], b[:, 2:])], 1
        )
    )
)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 3, 3), (1, 1, 2, 2), 1 / 9),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),  # touching
        ((0, 0, 1, 1), (5, 5, 6, 6), 0.0),  # apart on both axes: no product of two negatives
        ((1, 1, 1, 1), (1, 1, 1, 1), 0.0),  # no area at all
        ((2, 2, 0, 0), (0, 0, 2, 2), 0.0),  # inside out
    ],
)
def test_iou_of_hand_computed_pairs(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    got = geometry.iou(np.array([first], np.float32), np.array([second], np.float32))
    assert got.shape == (1, 1)
    assert got.dtype == np.float64
    assert got[0, 0] == expected


@given(corner_boxes, corner_boxes)
def test_iou_is_a_symmetric_share(first: np.ndarray, second: np.ndarray) -> None:
    got = geometry.iou(first, second)
    assert got.shape == (len(first), len(second))
    assert ((got >= 0) & (got <= 1)).all()
    assert np.array_equal(got, geometry.iou(second, first).T)


def test_iou_reads_float32_without_rounding_in_it() -> None:
    far = np.array([[4096.0, 4096.0, 4096.5, 4096.5]], np.float32)
    moved = far + np.array([0.25, 0, 0.25, 0], np.float32)
    assert geometry.iou(far, moved)[0, 0] == 1 / 3


@given(corner_boxes)
def test_center_and_corner_form_are_inverse(boxes: np.ndarray) -> None:
    back = geometry.to_corners(geometry.to_centers(boxes))
    np.testing.assert_allclose(back, boxes, atol=1e-12)


def test_clip_cuts_to_width_in_x_and_height_in_y() -> None:
    boxes = np.array([[-5.0, -6.0, 50.0, 60.0], [1.0, 2.0, 3.0, 4.0]])
    assert geometry.clip(boxes, 20, 30).tolist() == [[0, 0, 30, 20], [1, 2, 3, 4]]


def test_encoding_follows_the_paper() -> None:
    prior = np.array([[0.5, 0.4, 0.2, 0.1]])
    box = np.array([[0.45, 0.30, 0.85, 0.35]])  # center (.65, .325), size (.4, .05)
    got = geometry.encode(box, prior, 0.1, 0.2)[0]
    expected = [0.15 / 0.2 / 0.1, -0.075 / 0.1 / 0.1, math.log(2) / 0.2, math.log(0.5) / 0.2]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_decoding_undoes_encoding_whatever_the_variances() -> None:
    rng = np.random.default_rng(0)
    priors = np.concatenate([rng.uniform(0, 1, (50, 2)), rng.uniform(0.05, 1, (50, 2))], 1)
    low = rng.uniform(0, 0.6, (50, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.02, 0.4, (50, 2))], 1)
    for center, size in ((0.1, 0.2), (1.0, 1.0), (0.3, 0.05)):
        offsets = geometry.encode(boxes, priors, center, size)
        np.testing.assert_allclose(
            geometry.decode(offsets, priors, center, size), boxes, atol=1e-12
        )


def test_zero_offsets_give_the_prior() -> None:
    got = geometry.decode(np.zeros((1, 4)), np.array([[0.5, 0.5, 0.2, 0.4]]), 0.1, 0.2)
    np.testing.assert_allclose(got, [[0.4, 0.3, 0.6, 0.7]], rtol=1e-12)


def test_a_size_that_overflows_is_infinite_and_silent() -> None:
    got = geometry.decode(np.array([[0, 0, 1e6, 0]]), np.array([[0.5, 0.5, 0.2, 0.2]]), 0.1, 0.2)
    assert got[0, 2] == np.inf
