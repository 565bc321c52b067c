"""The bootstrap: a weighed resample is the data set it stands for, and intervals mean something."""

from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy.audit import by_pycocotools
from harness.accuracy.bootstrap import Difference, draw, interval, paired, verdict
from harness.accuracy.coco import coco_summary
from harness.accuracy.curves import (
    BLOCK,
    Floats,
    Matches,
    area_under,
    average_precision,
    eleven_points,
    means,
    recall_levels,
)
from harness.accuracy.voc import voc_map, voc_matches
from harness.interfaces import Detections, Truth

LABELS = ("background", "cat", "dog", "owl")


def scene(images: int, seed: int, miss: float = 0.3) -> tuple[list[Truth], list[Detections]]:
    """Objects of three classes (the last one rare), found roughly; no two scores are equal."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        objects = int(rng.integers(0, 5))
        low = rng.uniform(0, 150, (objects, 2))
        boxes = np.concatenate([low, low + rng.uniform(20, 120, (objects, 2))], axis=1)
        labels = rng.choice([1, 2, 3], objects, p=[0.6, 0.35, 0.05])
        truths.append(
            Truth(
                boxes.astype(np.float32),
                labels,
                rng.random(objects) < 0.1,
                rng.random(objects) < 0.05,
            )
        )
        seen = np.repeat(np.flatnonzero(rng.random(objects) > miss), 2)
        guesses = boxes[seen] + rng.normal(0, 8, (len(seen), 4))
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        named = np.where(rng.random(len(seen)) < 0.85, labels[seen], rng.integers(1, 4, len(seen)))
        scores = rng.permutation(1000)[: len(seen)] / 1000
        found.append(Detections(guesses.astype(np.float32), named, scores.astype(np.float32)))
    return truths, found


def test_draws_are_seeded_and_draw_as_many_images_as_there_are() -> None:
    weights = draw(30, 500, seed=4)
    assert weights.shape == (500, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert np.array_equal(weights, draw(30, 500, seed=4))
    assert not np.array_equal(weights, draw(30, 500, seed=5))
    assert np.unique(weights).max() > 2  # with replacement
    assert abs(weights.mean(axis=0) - 1).max() < 0.25  # no image is favoured


def test_weighing_images_equals_scoring_the_images_drawn() -> None:
    """Each resample is built for real, with copies, and scored by pycocotools and the VOC code."""
    truths, found = scene(25, seed=0)
    weights = draw(len(truths), 12, seed=1)
    coco = means(coco_summary(truths, found, LABELS).matches, weights, recall_levels)[0]
    voc = means(voc_matches(truths, found, len(LABELS)), weights, eleven_points, area_under)
    for index, counts in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(len(truths)), counts)
        own, answers = [truths[i] for i in drawn], [found[i] for i in drawn]
        figures = by_pycocotools(own, answers, len(LABELS))
        assert coco[:, index].mean() == pytest.approx(figures["map"], abs=1e-9)
        assert coco[0, index] == pytest.approx(figures["map50"], abs=1e-9)
        assert coco[5, index] == pytest.approx(figures["map75"], abs=1e-9)
        for rule, definition in enumerate(("voc07", "voc12")):
            expected = voc_map(own, answers, LABELS, definition=definition).mean  # type: ignore[arg-type]  # a literal of a loop
            assert voc[rule, 0, index] == pytest.approx(expected, abs=1e-9)


def test_drawing_every_image_once_is_the_estimate() -> None:
    truths, found = scene(60, seed=2)
    once = np.ones((1, 60), np.float32)
    summary = coco_summary(truths, found, LABELS)
    by_threshold = means(summary.matches, once, recall_levels)[0, :, 0]
    figures = by_pycocotools(truths, found, len(LABELS))
    assert by_threshold.mean() == pytest.approx(figures["map"], abs=1e-9)
    assert by_threshold[0] == pytest.approx(figures["map50"], abs=1e-9)


def test_a_class_that_was_not_drawn_stands_outside_the_mean() -> None:
    image = np.array([0, 1])
    always = np.ones((1, 2), np.bool_)
    cat = Matches(image[:1], always[:, :1], ~always[:, :1], np.array([1, 0]))
    dog = Matches(image[1:], ~always[:, :1], ~always[:, :1], np.array([0, 1]))
    weights = np.array([[1, 1], [2, 0], [0, 2]], np.float32)
    assert means([cat, dog], weights, area_under)[0, 0].tolist() == [0.5, 1.0, 0.0]
    nobody = Matches(image[:0], always[:, :0], always[:, :0], np.zeros(2, int))
    assert np.isnan(means([nobody], weights, area_under)).all()


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    truths, found = scene(30, seed=3)
    matches, weights = voc_matches(truths, found, len(LABELS)), draw(30, 40, seed=0)
    whole = means(matches, weights, area_under)
    monkeypatch.setattr("harness.accuracy.curves.BLOCK", 7 * len(matches[0].image))
    assert 7 * len(matches[0].image) < BLOCK
    assert np.array_equal(means(matches, weights, area_under), whole)


def test_an_interval_is_the_middle_95_percent_of_what_is_defined() -> None:
    values = np.concatenate([np.arange(1001.0), [np.nan] * 500])
    assert interval(values) == (25.0, 975.0, 1001)
    assert interval(np.array([np.nan])) is None


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """A detector that finds an object with p = 0.7 and never errs has AP 0.7 by VOC 2012.

    300 data sets of 60 images: coverage is binomial, 0.95 ± 0.04 at three standard deviations;
    the percentile bootstrap itself is known to cover a little less in small samples.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        found = np.flatnonzero(rng.random(60) < 0.7)
        hit = np.ones((1, len(found)), np.bool_)
        matches = Matches(found, hit, ~hit, np.ones(60, int))
        limits = interval(average_precision(matches, draw(60, 200, trial), area_under)[0, 0])
        assert limits is not None
        covered += limits.low <= 0.7 <= limits.high
    assert 0.90 <= covered / 300 <= 0.99


def changes(first: list[Detections], second: list[Detections], truths: list[Truth]) -> Difference:
    weights = np.concatenate([np.ones((1, len(truths)), np.float32), draw(len(truths), 300, 0)])

    def figures(found: list[Detections]) -> Floats:
        return means(voc_matches(truths, found, len(LABELS)), weights, area_under)[0, 0]

    change = paired(figures(first), figures(second))
    assert change is not None
    return change


def test_equal_detections_do_not_differ() -> None:
    truths, found = scene(40, seed=6)
    change = changes(found, [Detections(*answer) for answer in found], truths)
    assert change == (0.0, 0.0, 0.0, "no difference on these images")


def test_a_planted_loss_is_a_drop_and_its_mirror_a_gain() -> None:
    truths, found = scene(80, seed=7, miss=0.1)
    kept = np.random.default_rng(0).random(80) < 0.6
    poorer = [
        answer if keep else Detections(*(part[:0] for part in answer))
        for answer, keep in zip(found, kept, strict=True)
    ]
    drop, gain = changes(found, poorer, truths), changes(poorer, found, truths)
    assert drop.high < 0 < gain.low
    assert drop.verdict == f"drop of {-100 * drop.high:.1f} to {-100 * drop.low:.1f} AP"
    assert gain.verdict.startswith("gain of ")
    assert gain.estimate == -drop.estimate
    assert drop.low < drop.estimate < drop.high


def test_pairing_narrows_the_interval() -> None:
    """Both detectors see the same hard images, so their difference is known better than either."""
    truths, found = scene(80, seed=8)
    rng = np.random.default_rng(1)
    shaken = [
        Detections(
            answer.boxes,
            answer.labels,
            (answer.scores + rng.normal(0, 0.02, len(answer.scores))).astype(np.float32),
        )
        for answer in found
    ]
    change = changes(found, shaken, truths)
    weights = draw(80, 300, 0)
    alone = interval(means(voc_matches(truths, found, len(LABELS)), weights, area_under)[0, 0])
    assert alone is not None
    assert change.high - change.low < 0.5 * (alone.high - alone.low)
    assert change.verdict.startswith("no drop larger than ")


def test_an_undefined_figure_has_no_difference() -> None:
    undefined = np.full(11, np.nan)
    assert paired(undefined, undefined) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0204, -0.0117, "drop of 1.2 to 2.0 AP"),
        (-0.004, 0.002, "no drop larger than 0.4 AP"),
        (-0.004, 0.0, "no drop larger than 0.4 AP"),
        (0.011, 0.02, "gain of 1.1 to 2.0 AP"),
        (0.0, 0.02, "no drop, gain of up to 2.0 AP"),
        (0.0, 0.0, "no difference on these images"),
        (-0.0002, 0.01, "no drop larger than 0.02 AP"),
    ],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(low, high) == expected
