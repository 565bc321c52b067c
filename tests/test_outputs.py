"""Kinds of outputs: the same heads, answered in three ways, give the same detections."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness_overhead import empty_artifact
from harness import parity
from harness.boxes import decode as decode_boxes
from harness.errors import BadInput, ParityFailed
from harness.interfaces import ANSWERS, Detections, RawOutputs, ReadyDetections, ScoredBoxes
from harness.outputs import KINDS, scored
from harness.records import Artifact, Decoding, TensorSpec, encode
from harness.records import decode as read_record

LABELS = ("background", "one", "two")
PRIORS = np.array([(x, y, 0.2, 0.3) for y in (0.2, 0.5, 0.8) for x in (0.2, 0.5, 0.8)], np.float32)
SIZES = [(60, 80), (60, 80)]


def artifact(kind: str = "heads", **changes: object) -> Artifact:
    image = msgspec.structs.replace(empty_artifact().image, height=60, width=80)
    spec = TensorSpec(name="any", dtype="float32", shape=(1,), layout="NPC")
    return msgspec.structs.replace(
        empty_artifact(),
        labels=LABELS,
        image=image,
        decoding=Decoding(score_threshold=0.2, max_detections=5),
        output_kind=kind,
        outputs=(spec,) * (4 if kind == "detections" else 2),
        **changes,
    )


def heads(seed: int = 0) -> RawOutputs:
    rng = np.random.default_rng(seed)
    return RawOutputs(
        rng.normal(0, 2, (2, 9, 3)).astype("f4"), rng.normal(0, 1, (2, 9, 4)).astype("f4")
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def as_scored(raw: RawOutputs) -> ScoredBoxes:
    boxes = decode_boxes(raw.offsets, PRIORS, 0.1, 0.2).astype("f4")
    return ScoredBoxes(softmax(raw.logits), boxes)


def as_ready(found: list[Detections], places: int = 7) -> ReadyDetections:
    """What a graph with suppression inside would answer; the unused places hold rubbish."""
    boxes = np.full((len(found), places, 4), 9, "f4")
    classes, scores = np.full((len(found), places), 99, "f4"), np.ones((len(found), places), "f4")
    for index, one in enumerate(found):
        count = len(one.scores)
        boxes[index, :count] = (one.boxes / (80, 60, 80, 60))[:, [1, 0, 3, 2]]
        classes[index, :count], scores[index, :count] = one.labels - 1, one.scores
    counts = np.array([len(one.scores) for one in found], "f4")
    return ReadyDetections(boxes, classes, scores, counts)


def same(first: list[Detections], second: list[Detections]) -> None:
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_allclose(one.scores, two.scores, rtol=1e-6)
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-4)


def reference() -> list[Detections]:
    return KINDS["heads"].detections(artifact(), PRIORS, heads(), SIZES)


def test_every_kind_names_the_arrays_that_sessions_answer() -> None:
    assert set(KINDS) == set(ANSWERS)
    for name, kind in KINDS.items():
        assert ANSWERS[name]._fields == kind.names


def test_scores_and_boxes_decode_as_their_heads_do() -> None:
    assert sum(len(one.scores) for one in reference()) > 4
    got = KINDS["scored_boxes"].detections(
        artifact("scored_boxes"), PRIORS, as_scored(heads()), SIZES
    )
    same(got, reference())


def test_ready_detections_are_read_to_their_count() -> None:
    ready = as_ready(reference())
    same(KINDS["detections"].detections(artifact("detections"), PRIORS, ready, SIZES), reference())


def test_ready_detections_obey_threshold_limit_and_image() -> None:
    boxes = np.array([[[-1, -1, 0.5, 0.5], [0, 0, 1, 1], [2, 2, 3, 3], [0.2, 0.2, 0.3, 0.3]]], "f4")
    answer = ReadyDetections(
        boxes, np.zeros((1, 4)), np.array([[0.3, 0.9, 0.8, 0.1]]), np.array([4])
    )
    (found,) = KINDS["detections"].detections(artifact("detections"), PRIORS, answer, SIZES[:1])
    np.testing.assert_allclose(found.scores, [0.9, 0.3])  # 0.8 is outside, 0.1 below 0.2
    np.testing.assert_array_equal(found.boxes, [[0, 0, 80, 60], [0, 0, 40, 30]])


def test_a_class_without_a_name_is_refused() -> None:
    ready = as_ready(reference())
    ready.classes[0, 0] = 2
    with pytest.raises(BadInput, match=r"answers class 2 .* names 2 classes"):
        KINDS["detections"].detections(artifact("detections"), PRIORS, ready, SIZES)


@pytest.mark.parametrize("kind", ["scored_boxes", "detections"])
def test_swapped_outputs_are_refused(kind: str) -> None:
    answer = as_scored(heads()) if kind == "scored_boxes" else as_ready(reference())
    with pytest.raises(BadInput, match="check the order of the outputs"):
        KINDS[kind].detections(artifact(kind), PRIORS, answer[::-1], SIZES)


@pytest.mark.parametrize("kind", list(KINDS))
def test_equal_answers_pass_parity_and_others_fail(kind: str) -> None:
    rules = artifact(kind)
    made = {
        "heads": heads,
        "scored_boxes": lambda seed=0: as_scored(heads(seed)),
        "detections": lambda seed=0: as_ready(
            KINDS["heads"].detections(artifact(), PRIORS, heads(seed), SIZES)
        ),
    }[kind]
    found = {m.metric: m.value for m in KINDS[kind].compare(rules, PRIORS, heads(), made())}
    assert found["parity.detections.lost"] == found["parity.detections.new"] == 0
    with pytest.raises(ParityFailed, match="too far for float32"):
        KINDS[kind].compare(rules, PRIORS, heads(), made(1))


def test_a_wrong_offset_is_not_hidden_by_the_place_of_its_prior() -> None:
    """A box 0.002 off is 60 dB below coordinates of 1, and not below its offset from the prior."""
    answer = as_scored(heads())
    answer.boxes[0, 3, 0] += 0.002
    with pytest.raises(ParityFailed, match=r"^boxes have"):
        KINDS["scored_boxes"].compare(artifact("scored_boxes"), PRIORS, heads(), answer)


def test_sigmoid_scores_are_those_of_the_decoder() -> None:
    rules = artifact("scored_boxes", weights_source="x")
    rules = msgspec.structs.replace(rules, decoding=Decoding(score="sigmoid"))
    expected = 1 / (1 + np.exp(-heads().logits[..., 1:]))
    np.testing.assert_allclose(scored(rules, PRIORS, heads()).scores[..., 1:], expected, rtol=1e-6)


def test_agreement_is_weighted_by_score() -> None:
    def one(*rows: tuple[float, float]) -> Detections:
        boxes = np.array([(x, 0, x + 10, 10) for x, _ in rows], "f4").reshape(-1, 4)
        scores = np.array([score for _, score in rows], "f4")
        return Detections(boxes, np.ones(len(rows), np.int64), scores)

    both = one((0, 0.8), (50, 0.2))
    assert parity.agreement([both], [both]) == pytest.approx(1)
    assert parity.agreement([both], [one((0, 0.8))]) == pytest.approx(0.8)
    assert parity.agreement([both], [one((0, 0.4), (50, 0.2))]) == pytest.approx(0.6)
    assert parity.agreement([both], [one()]) == 0
    assert parity.agreement([one()], [one()]) == 1


def test_a_manifest_without_the_field_has_heads(tmp_path: Path) -> None:
    plain = msgspec.json.decode(encode(empty_artifact()))
    del plain["output_kind"]
    old = read_record(msgspec.json.encode(plain), Artifact, tmp_path)
    assert old.output_kind == "heads"
