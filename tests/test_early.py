"""Scoring until a question is answered: the images taken, what is recorded, what is quoted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from harness import config
from harness.accuracy import DEFINITIONS, compare, compared
from harness.accuracy.stopping import FIGURES, parse
from harness.detections import Found, of_names
from harness.early import METRIC, Ended, quoted, record, score_until
from harness.errors import BadConfig, ResultsError, UnknownName
from harness.interfaces import Detections, Truth
from harness.records import encode
from harness.scoring import Pass

LABELS = ("background", "cat", "dog")
IMAGES = 120


def world(lost: float) -> tuple[Found, Found]:
    """What the float parent found in all images, and a child that finds nothing in some."""
    rng = np.random.default_rng(4)
    names, truths, found, poorer = [], [], [], []
    for index in range(IMAGES):
        low = rng.uniform(0, 60, (3, 2)).astype(np.float32)
        boxes = np.concatenate([low, low + 30], axis=1)
        labels = np.array([1, 1, 2])
        no = np.zeros(3, np.bool_)
        answer = Detections(
            boxes + rng.normal(0, 1.5, (3, 4)).astype(np.float32),
            labels,
            rng.random(3).astype(np.float32),
        )
        names.append(f"image {index}")
        truths.append(Truth(boxes, labels, no, no))
        found.append(answer)
        silent = Detections(*(part[:0] for part in answer))
        poorer.append(silent if rng.random() < lost else answer)
    rest = [(100, 100)] * IMAGES, [str(k) for k in range(IMAGES)], truths
    return Found(names, found, *rest), Found(names, poorer, *rest)


def runner(child: Found, asked: list[int]) -> Callable[[Sequence[int], bool], Pass]:
    def run(indices: Sequence[int], first: bool) -> Pass:
        assert first == (not asked)
        asked.extend(indices)
        columns = [[column[k] for k in indices] for column in child]  # type: ignore[index]
        return Pass(Found(*columns), ())

    return run


def ended(lost: float, question: str, seed: int = 0) -> tuple[Ended, list[int], Found]:
    parent, child = world(lost)
    asked: list[int] = []
    got = score_until(parse(question), IMAGES, runner(child, asked), parent, len(LABELS), seed)
    return got, asked, parent


def test_a_broken_model_is_found_out_on_a_part_of_the_images_in_a_drawn_order() -> None:
    got, asked, _ = ended(0.9, "drop < 10 AP")
    assert [one.answer for one in got.answers] == ["no"]
    assert len(asked) == IMAGES / 8
    assert asked != sorted(asked)
    assert asked == ended(0.9, "drop < 10 AP")[1]
    assert asked != ended(0.9, "drop < 10 AP", seed=1)[1]
    kept = record(got, 0)
    assert (kept.metric, kept.value, kept.unit) == (METRIC, 15.0, "images")
    assert kept.conditions["reason"].startswith("'drop < 10 AP' answered with no (drop of ")
    assert kept.conditions["reason"].endswith(" after 15 of 120 images")
    assert (kept.conditions["answer"], kept.conditions["planned"]) == ("no", IMAGES)
    encode(kept)


def test_a_question_that_stays_open_scores_every_image_once() -> None:
    got, asked, _ = ended(0.0, "drop < 0.1 AP")
    assert sorted(asked) == list(range(IMAGES))
    assert [one.look.images for one in got.answers] == [15, 30, 60, 120]
    assert "all images were scored and the answer stays open" in record(got, 0).conditions["reason"]


def test_the_interval_that_is_quoted_is_the_last_looks() -> None:
    got, _, parent = ended(0.8, "drop < 20 AP50")
    found = got.seen.found
    assert found.truths is not None
    assert found.sizes is not None
    theirs = of_names(parent, found.names)
    assert theirs is not None
    plain = compare(found.truths, theirs, found.detections, found.sizes, LABELS, resamples=50)
    after = quoted(plain, got)
    change = got.answers[-1].change
    for one, two in zip(plain, after, strict=True):
        assert two.value == one.value
        assert two.conditions["until"] == "drop < 20 AP50"
        if two.metric == "accuracy.coco_map50_change":
            assert two.value == pytest.approx(change.estimate)
            assert two.conditions["ci95"] == [change.low, change.high]
            assert two.conditions["verdict"] == change.verdict
            assert change.low < one.conditions["ci95"][0]
            assert change.high > one.conditions["ci95"][1]
        else:
            assert two.conditions["ci95"] == one.conditions["ci95"]


def test_one_figure_alone_is_the_figure_among_all() -> None:
    parent, child = world(0.3)
    assert parent.truths is not None
    assert parent.sizes is not None
    both = parent.detections, child.detections
    whole = compare(parent.truths, *both, parent.sizes, LABELS, resamples=20)
    changes = {item.metric.removesuffix("_change"): item.value for item in whole}
    assert set(FIGURES.values()) < set(DEFINITIONS)
    for metric in FIGURES.values():
        one = compared(metric, parent.truths, *both, len(LABELS), seed=0, resamples=20)
        assert one.child[0] - one.parent[0] == pytest.approx(changes[metric], abs=1e-12)
        assert 0.5 / IMAGES < one.cost < 2 / IMAGES


def test_a_parent_of_other_images_ends_nothing() -> None:
    parent, child = world(0.0)
    fewer = parent._replace(names=[f"other {k}" for k in range(IMAGES)])
    with pytest.raises(ResultsError, match="not scored on the same images"):
        score_until(parse("drop < 1 AP"), IMAGES, runner(child, []), fewer, len(LABELS), 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"accuracy.until": "drop"}, BadConfig, "is no question"),
        ({"accuracy.until": "drop < 1 AP", "shards": 2}, BadConfig, "shards do not keep"),
        ({"accuracy.score": 1.5}, BadConfig, "'accuracy.score' of the command line is 1.5"),
        ({"accuracy.iou": 0.0}, BadConfig, "'accuracy.iou' of the command line is 0"),
        ({"decoding": "fast"}, UnknownName, "unknown decoding policy 'fast'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        config.load(None, settings)
