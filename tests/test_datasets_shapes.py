"""The drawn data set: the same everywhere, exact boxes, splits apart, as rich as it says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import PCG64, Generator
from PIL import Image

from harness.datasets import _shape_scene
from harness.datasets._shape_outlines import OUTLINES
from harness.datasets._shape_scene import IN_IMAGE, VISIBLE, stamp
from harness.datasets.shapes import LABELS, MOST, SPLITS, Shapes
from harness.errors import BadConfig, UnknownName

GOLDEN_BOXES = {
    "train": [
        [113.0, 68.0, 191.0, 152.0],
        [124.0, 129.0, 187.0, 185.0],
        [29.0, 6.0, 112.0, 76.0],
        [72.0, 112.0, 146.0, 185.0],
        [209.0, 140.0, 256.0, 209.0],
        [261.0, 53.0, 310.0, 107.0],
        [116.0, 43.0, 156.0, 85.0],
        [174.0, 118.0, 226.0, 177.0],
        [126.0, 144.0, 173.0, 195.0],
        [125.0, 58.0, 158.0, 97.0],
    ],
    "val": [
        [67.0, 136.0, 136.0, 218.0],
        [45.0, 217.0, 119.0, 284.0],
        [103.0, 147.0, 160.0, 204.0],
        [89.0, 227.0, 146.0, 286.0],
        [151.0, 195.0, 196.0, 235.0],
        [96.0, 15.0, 137.0, 51.0],
    ],
    "calibration": [
        [117.0, 60.0, 229.0, 170.0],
        [134.0, 17.0, 182.0, 63.0],
        [241.0, 133.0, 280.0, 176.0],
    ],
}
GOLDEN_LABELS = {
    "train": [
        "hexagon",
        "square",
        "ring",
        "square",
        "arrow",
        "cross",
        "heart",
        "ring",
        "crescent",
        "triangle",
    ],
    "val": ["star", "crescent", "hexagon", "ring", "cross", "hexagon"],
    "calibration": ["ring", "heart", "hexagon"],
}
GOLDEN_THUMBNAIL = [
    [[130, 84, 206], [120, 87, 194], [111, 109, 147], [98, 91, 140], [88, 68, 142], [85, 66, 136]],
    [[118, 79, 178], [103, 87, 163], [81, 96, 142], [76, 86, 138], [85, 78, 134], [91, 72, 139]],
    [[105, 90, 171], [106, 97, 141], [66, 108, 106], [53, 71, 124], [105, 96, 125], [87, 75, 135]],
    [[89, 111, 175], [98, 99, 132], [93, 112, 110], [85, 102, 102], [75, 81, 119], [73, 71, 122]],
]
GOLDEN_DIGESTS = {
    "train": "d65f43fde6cad6327c9ecae773e0043fcbdb10e4c0d85fb3b80033e642a36129",
    "val": "bcb789fb6170796b5199ff917972aa1218228800554ad6bde6341817676f7796",
    "calibration": "3f669b52ad051b95b6836aae51503917ce3126cdd6618662d50c273523014edd",
}
"""Digests are exact on every machine because `_shape_outlines` says how; see its head."""


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_and_labels_are_golden(split):
    truth = Shapes(split).truth(5)
    assert truth.boxes.dtype == np.float32
    assert truth.labels.dtype == np.int64
    assert truth.boxes.tolist() == GOLDEN_BOXES[split]
    assert [LABELS[label] for label in truth.labels] == GOLDEN_LABELS[split]


def test_the_picture_looks_as_it_did():
    image = Image.fromarray(Shapes("val").image(5))
    thumbnail = np.asarray(image.resize((6, 4), Image.Resampling.BOX)).astype(int)
    assert np.abs(thumbnail - np.array(GOLDEN_THUMBNAIL)).max() <= 2


@pytest.mark.parametrize("split", SPLITS)
def test_pixels_are_golden_to_the_bit(split):
    assert Shapes(split).digest(5) == GOLDEN_DIGESTS[split]


def test_an_image_does_not_depend_on_the_count_or_on_what_was_drawn_before():
    few, many = Shapes("val", 8), Shapes("val", MOST)
    many.image(1_234_567)
    assert np.array_equal(few.image(7), many.image(7))
    assert few.digest(7) == many.digest(7)


def test_no_image_is_in_two_splits_or_twice_in_one():
    digests = [Shapes(split).digest(index) for split in SPLITS for index in range(70)]
    assert len(set(digests)) == len(digests)
    assert len({number for number, _ in SPLITS.values()}) == len(SPLITS)


@pytest.mark.slow
def test_no_image_that_a_default_run_uses_is_in_two_splits():
    used = {"val": 1_000, "calibration": 512, "train": 1_000}
    digests = [Shapes(split).digest(i) for split, count in used.items() for i in range(count)]
    assert len(set(digests)) == len(digests)


def test_sizes_of_the_splits():
    assert {split: len(Shapes(split)) for split in SPLITS} == {
        "train": 8_000,
        "val": 1_000,
        "calibration": 512,
    }


def test_boxes_are_tight_around_the_unhidden_clipped_shape():
    data = Shapes("train")
    for index in range(40):
        scene = data.scene(index)
        for (xmin, ymin, xmax, ymax), mask in zip(
            scene.boxes.astype(int), scene.masks, strict=True
        ):
            assert mask.sum() == mask[ymin:ymax, xmin:xmax].sum()
            for edge in (mask[ymin], mask[ymax - 1], mask[:, xmin], mask[:, xmax - 1]):
                assert edge.any()


def test_at_least_the_promised_part_of_each_object_is_seen():
    data = Shapes("train")
    for index in range(60):
        scene = data.scene(index)
        for place, mask in enumerate(scene.masks):
            hidden = np.zeros_like(mask)
            for later in scene.masks[place + 1 :]:
                hidden |= later
            seen = np.count_nonzero(mask & ~hidden)
            # of the whole shape at least VISIBLE is seen; the clipped mask is at most the whole
            assert seen >= VISIBLE * np.count_nonzero(mask)
    assert VISIBLE >= 0.5
    assert IN_IMAGE > VISIBLE


def test_all_that_is_painted_has_its_box_and_mask(monkeypatch):
    painted = []
    monkeypatch.setattr(_shape_scene, "blend", lambda patch, cover, paint: painted.append(cover))
    scene = Shapes("train").scene(3)
    assert len(painted) == len(scene.boxes)
    for cover, mask in zip(painted, scene.masks, strict=True):
        assert np.count_nonzero(cover >= 0.5) == np.count_nonzero(mask)


def test_a_stamp_is_never_cut_by_its_own_frame():
    rng = Generator(PCG64(5))
    for number in range(400):
        item = stamp(rng, number % len(OUTLINES), 19 + number * 0.4)
        for edge in (item.solid[0], item.solid[-1], item.solid[:, 0], item.solid[:, -1]):
            assert not edge.any()


@pytest.mark.parametrize("kind", range(len(OUTLINES)), ids=list(OUTLINES))
def test_an_outline_is_of_the_size_asked_for(kind):
    rng = Generator(PCG64(kind))
    longest = [max(stamp(rng, kind, 100).solid.shape) - 2 for _ in range(40)]
    assert 70 <= np.median(longest) <= 115


def test_the_data_is_as_varied_as_it_says():
    scenes = [Shapes("train").scene(index) for index in range(150)]
    counts = np.array([len(scene.boxes) for scene in scenes])
    assert counts.min() >= 1
    assert counts.max() >= 8
    kinds = np.bincount(np.concatenate([scene.kinds for scene in scenes]), minlength=10)
    assert kinds.min() > 0.06 * kinds.sum()
    shapes = {scene.image.shape[:2] for scene in scenes}
    assert {max(shape) for shape in shapes} == {320}
    assert {height > width for height, width in shapes} == {True, False}
    sides, cut = [], 0
    for scene in scenes:
        height, width = scene.image.shape[:2]
        spans = scene.boxes[:, 2:] - scene.boxes[:, :2]
        sides += (spans.max(1) / np.sqrt(height * width)).tolist()
        ends = (scene.boxes[:, :2] == 0) | (scene.boxes[:, 2:] == (width, height))
        cut += int(ends.any(1).sum())
    assert min(sides) < 0.12
    assert max(sides) > 0.55
    assert np.mean(np.array(sides) > 0.12) > 0.85
    assert 0.05 < cut / len(sides) < 0.4


def test_labels_have_the_background_first_and_ten_classes():
    assert LABELS[0] == "background"
    assert len(set(LABELS)) == 11


def test_unknown_splits_and_impossible_counts_are_refused():
    with pytest.raises(UnknownName, match="did you mean 'val'"):
        Shapes("vall")
    for count in (0, -1, MOST + 1):
        with pytest.raises(BadConfig, match="expected 1 to 10000000"):
            Shapes("train", count)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            Shapes("train", 3).image(index)
    with pytest.raises(IndexError):
        Shapes("train", 3, cached=True).truth(3)
