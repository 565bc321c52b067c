"""Augmented boxes lie inside the view and go on covering what they covered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.datasets.shapes import Shapes
from harness.images import resize
from harness.records import ImageSpec
from models.training.augment import (
    Augmentation,
    Sample,
    View,
    augment,
    choose_close_up,
    choose_window,
    look,
    mirror,
    recolour,
)

SPEC = ImageSpec(height=64, width=64, mean=(10.0, 20.0, 30.0), std=(1.0, 1.0, 1.0))
GREEN = (0, 255, 0)
STILL = Augmentation(mirror=0, crop=0, expand=0, brightness=0, contrast=0, saturation=0, hue=0)


def painted(seed: int) -> Sample:
    """Black, with up to three green rectangles that do not touch, and their boxes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((90, 120, 3), np.uint8)
    boxes = []
    for slot in rng.choice(3, rng.integers(1, 4), replace=False):
        x, y = 40 * slot + rng.integers(2, 8), rng.integers(2, 30)
        w, h = rng.integers(12, 30), rng.integers(12, 50)
        image[y : y + h, x : x + w] = GREEN
        boxes.append((x, y, x + w, y + h))
    return Sample(image, np.array(boxes, np.float32), np.arange(1, len(boxes) + 1))


def geometry(**changes: float) -> Augmentation:
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return Augmentation(**{**still, **changes})


def whole(sample: Sample, size: tuple[int, int], spec: ImageSpec) -> View:
    """The whole image, unchanged but for its size."""
    height, width, _ = sample.image.shape
    return look(sample, np.array([0, 0, width, height], np.float64), size, spec)


def check_boxes_cover_green(view: View) -> None:
    """All green lies in boxes, but for blurred edges, and each box is green to its edges."""
    size = len(view.pixels)
    green = view.pixels[:, :, 1] - view.pixels[:, :, 0] > 128
    edges = view.boxes * size
    for left, top, right, bottom in edges:
        inner = green[
            int(np.ceil(top)) + 1 : int(bottom) - 1, int(np.ceil(left)) + 1 : int(right) - 1
        ]
        assert inner.all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_boxes_stay_inside_and_on_their_objects(seed: int) -> None:
    sample = painted(seed)
    how = geometry(mirror=0.5, crop=0.6, crop_least=0.4, expand=0.4, expand_most=2.0)
    view = augment(sample, (64, 64), how, SPEC, np.random.default_rng(seed))
    assert view.pixels.shape == (64, 64, 3)
    assert view.pixels.dtype == view.boxes.dtype == np.float32
    assert len(view.boxes) == len(view.labels) >= 1
    assert np.all((view.boxes >= 0) & (view.boxes <= 1))
    assert np.all(view.boxes[:, 2:] > view.boxes[:, :2])
    assert set(view.labels) <= set(sample.labels)
    check_boxes_cover_green(view)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_crops_keep_an_object_and_stay_in_the_image(seed: int) -> None:
    sample = painted(seed)
    window = choose_window(sample, geometry(crop=1.0, crop_least=0.3), np.random.default_rng(seed))
    assert np.all(window[:2] >= 0)
    assert np.all(window[2:] <= (120 + 1e-9, 90 + 1e-9))
    assert np.all(window[2:] - window[:2] >= np.array([120, 90]) * 0.3 - 1e-9)
    assert len(look(sample, window, (64, 64), SPEC).boxes) >= 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.2, 1.5))
def test_close_ups_show_an_object_at_its_own_scale(seed: int, share: float) -> None:
    sample = painted(seed)
    window = choose_close_up(sample, share, np.random.default_rng(seed))
    assert np.all(window[:2] >= 0)
    assert np.all(window[2:] <= (120 + 1e-9, 90 + 1e-9))
    shares = (window[2:] - window[:2]) / (120, 90)
    assert np.all(shares >= min(0.8 * share, 1) - 1e-9)
    assert np.all(shares <= min(1.25 * share, 1) + 1e-9)
    view = look(sample, window, (64, 64), SPEC)
    assert len(view.boxes) >= 1
    check_boxes_cover_green(view)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_expanding_shows_the_whole_image_on_the_mean_colour(seed: int) -> None:
    sample = painted(seed)
    how = geometry(mirror=0, crop=0, expand=1.0, expand_most=3.0)
    window = choose_window(sample, how, np.random.default_rng(seed))
    assert np.all(window[:2] <= 0)
    assert np.all(window[2:] >= (120 - 1e-9, 90 - 1e-9))
    view = look(sample, window, (64, 64), SPEC)
    assert len(view.boxes) == len(sample.boxes)
    share = (120 * 90) / np.prod(window[2:] - window[:2])
    outside = np.all(view.pixels == np.asarray(SPEC.mean, np.float32), axis=2).mean()
    assert outside == pytest.approx(1 - share, abs=0.05)


def test_whole_view_is_what_evaluation_sees() -> None:
    data = Shapes("train", 4)
    for index in range(4):
        truth = data.truth(index)
        sample = Sample(data.image(index), truth.boxes, truth.labels)
        seen = whole(sample, (64, 64), SPEC)
        np.testing.assert_array_equal(seen.pixels, resize(sample.image, SPEC).astype(np.float32))
        height, width, _ = sample.image.shape
        np.testing.assert_allclose(
            seen.boxes, truth.boxes / np.array([width, height, width, height]), atol=1e-6
        )
        unchanged = augment(sample, (64, 64), STILL, SPEC, np.random.default_rng(0))
        np.testing.assert_allclose(unchanged.pixels, seen.pixels, atol=1e-3)
        np.testing.assert_array_equal(unchanged.boxes, seen.boxes)


def test_mirror_twice_is_the_same() -> None:
    view = whole(painted(3), (64, 64), SPEC)
    once = mirror(view)
    assert not np.allclose(once.boxes, view.boxes)
    check_boxes_cover_green(once)
    twice = mirror(once)
    np.testing.assert_array_equal(twice.pixels, view.pixels)
    np.testing.assert_allclose(twice.boxes, view.boxes, atol=1e-6)


def test_objects_whose_centre_is_cut_off_are_dropped() -> None:
    sample = painted(5)._replace(
        boxes=np.array([[0, 0, 40, 40], [50, 50, 60, 60]], np.float32), labels=np.array([1, 2])
    )
    view = look(sample, np.array([30.0, 30.0, 90.0, 90.0]), (60, 60), SPEC)
    assert view.labels.tolist() == [2]
    np.testing.assert_allclose(view.boxes * 60, [[20, 20, 30, 30]], atol=1e-4)


def test_colours_by_hand() -> None:
    grey = np.full((4, 4, 3), 100, np.float32)
    turned = recolour(grey, geometry(saturation=0.9, hue=90.0), np.random.default_rng(0))
    np.testing.assert_allclose(turned, grey, atol=0.5)  # grey has neither saturation nor hue
    rng = np.random.default_rng(0)
    shift = np.random.default_rng(0).uniform(-0.2, 0.2) * 255
    np.testing.assert_allclose(
        recolour(grey, geometry(brightness=0.2), rng), grey + shift, atol=0.5
    )
    bright = recolour(grey + 150, geometry(brightness=0.9), np.random.default_rng(1))
    assert bright.min() >= 0
    assert bright.max() <= 255


def test_a_view_depends_on_its_seed_alone() -> None:
    sample = painted(7)
    views = [
        augment(sample, (32, 32), Augmentation(), SPEC, np.random.default_rng(9)) for _ in range(2)
    ]
    np.testing.assert_array_equal(views[0].pixels, views[1].pixels)
    np.testing.assert_array_equal(views[0].boxes, views[1].boxes)
    other = augment(sample, (32, 32), Augmentation(), SPEC, np.random.default_rng(10))
    assert not np.array_equal(other.pixels, views[0].pixels)
