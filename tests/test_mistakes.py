"""Hits, false positives of each kind, and misses: planted, and held to COCO's matching."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.accuracy.coco_matching import match
from harness.interfaces import Detections, Truth
from harness.mistakes import Fate, Kind, by_size, confusion, judge

CAT, DOG = 1, 2
Row = tuple[float, float, float, float, int]


def _truth(*rows: Row, difficult: int = 0, crowd: int = 0) -> Truth:
    """Objects; the last ``difficult`` of them are, or the last ``crowd``."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    place = np.arange(len(table))
    flags = place >= len(table) - difficult, place >= len(table) - crowd
    return Truth(table[:, :4], table[:, 4].astype(np.int64), *flags)


def _found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


def test_every_kind_of_mistake_is_told_apart() -> None:
    truth = _truth(
        (0, 0, 40, 40, CAT),  # found, and found again
        (100, 0, 140, 40, DOG),  # called a cat
        (0, 100, 40, 140, CAT),  # badly placed
        (100, 100, 140, 140, DOG),  # missed
    )
    found = _found(
        (0, 0, 40, 40, CAT, 0.9),
        (2, 2, 42, 42, CAT, 0.8),
        (100, 0, 140, 40, CAT, 0.7),
        (20, 110, 60, 150, CAT, 0.6),
        (200, 200, 240, 240, DOG, 0.55),
        (100, 100, 140, 140, DOG, 0.2),
    )
    judged = judge(truth, found, 0.5)
    assert judged.kinds.tolist() == [
        Kind.HIT,
        Kind.DUPLICATE,
        Kind.CONFUSED,
        Kind.PLACED,
        Kind.NOTHING,
        Kind.HIDDEN,
    ]
    assert judged.targets.tolist() == [0, 0, 1, 2, -1, -1]
    assert judged.fates.tolist() == [Fate.FOUND, Fate.CONFUSED, Fate.PLACED, Fate.MISSED]
    assert judged.errors == 7
    assert confusion([truth], [found], [judged], 3).tolist() == [
        [0, 2, 1],  # there is nothing: the duplicate, the badly placed one, and a dog
        [1, 1, 0],  # cats: one not found, one found
        [1, 1, 0],  # dogs: one not found, one called a cat
    ]


def test_the_better_score_takes_the_object() -> None:
    truth = _truth((0, 0, 40, 40, CAT))
    found = _found((1, 1, 41, 41, CAT, 0.6), (5, 5, 45, 45, CAT, 0.9))
    assert judge(truth, found, 0.5).kinds.tolist() == [Kind.DUPLICATE, Kind.HIT]


def test_difficult_objects_count_neither_way() -> None:
    truth = _truth((0, 0, 40, 40, CAT), (100, 0, 140, 40, CAT), difficult=1)
    found = _found((0, 0, 40, 40, CAT, 0.9), (100, 0, 140, 40, CAT, 0.9))
    judged = judge(truth, found, 0.5)
    assert judged.kinds.tolist() == [Kind.HIT, Kind.IGNORED]
    assert judged.fates.tolist() == [Fate.FOUND, Fate.IGNORED]
    assert judged.errors == 0


def test_detections_within_a_crowd_count_neither_way() -> None:
    truth = _truth((0, 0, 400, 400, CAT), crowd=1)
    found = _found((10, 10, 40, 40, CAT, 0.9), (10, 10, 40, 40, DOG, 0.8))
    assert judge(truth, found, 0.5).kinds.tolist() == [Kind.IGNORED, Kind.NOTHING]


@pytest.mark.parametrize(("objects", "answers"), [(0, 0), (0, 1), (1, 0)])
def test_empty_images_are_judged(objects: int, answers: int) -> None:
    truth = _truth(*[(0.0, 0.0, 40.0, 40.0, CAT)] * objects)
    found = _found(*[(0.0, 0.0, 40.0, 40.0, CAT, 0.9)] * answers)
    judged = judge(truth, found, 0.5)
    assert judged.errors == objects + answers
    assert confusion([truth], [found], [judged], 2).sum() == objects + answers


def test_sizes_are_cocos_and_use_the_segment_where_there_is_one() -> None:
    truth = _truth((0, 0, 32, 32, CAT), (0, 0, 33, 32, CAT), (0, 0, 96, 97, CAT))
    judged = judge(truth, _found(), 0.5)
    assert by_size([truth], [judged])[:, Fate.MISSED].tolist() == [1, 1, 1]
    segments = truth._replace(area=np.array([10.0, 10.0, 9216.0]))
    assert by_size([segments], [judged])[:, Fate.MISSED].tolist() == [2, 1, 0]


@st.composite
def _images(draw: st.DrawFn) -> tuple[Truth, Detections]:
    box = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(2, 4), st.integers(2, 4))
    objects = draw(st.lists(st.tuples(box, st.sampled_from([CAT, DOG])), max_size=5))
    scores = draw(st.lists(st.integers(1, 99), max_size=8, unique=True))
    answers = [(draw(box), draw(st.sampled_from([CAT, DOG])), score) for score in scores]
    return (
        _truth(*((x, y, x + w, y + h, kind) for (x, y, w, h), kind in objects)),
        _found(*((x, y, x + w, y + h, kind, s / 100) for (x, y, w, h), kind, s in answers)),
    )


@settings(max_examples=150)
@given(_images())
def test_hits_are_those_of_coco_at_half_an_overlap(image: tuple[Truth, Detections]) -> None:
    truth, found = image
    judged = judge(truth, found, 0.0)
    matching = match([truth], [found], 3)
    for label in (CAT, DOG):
        of_class = matching.of_class(label, "all")
        mine = (judged.kinds == Kind.HIT) & (found.labels == label)
        assert mine.sum() == of_class.hit[0].sum()
    table = confusion([truth], [found], [judged], 3)
    assert table[:, 1:].sum() == len(found.labels)
    assert table[1:].sum() == len(truth.labels)
    assert by_size([truth], [judged]).sum() == len(truth.labels)
