"""Decoding policies by name: what they are, how they change, and that old manifests still load."""

from __future__ import annotations

import json

import msgspec
import pytest

from benchmarks.harness_overhead import empty_artifact
from harness.errors import BadConfig, UnknownName, Unsupported
from harness.policies import POLICIES, decoded_by, describe, policy
from harness.records import Decoding, decode, encode


def test_every_policy_carries_its_name_and_the_default_is_the_records() -> None:
    assert all(name == one.policy for name, one in POLICIES.items())
    assert POLICIES["detbench"] == Decoding()


def test_each_family_decodes_as_its_own_code_does() -> None:
    """pytorch-ssd's predictor, its soft variant, TensorFlow's SSD configuration, Ultra-Light's."""
    rules = {
        name: (
            one.score,
            one.suppression,
            one.iou_threshold,
            one.candidates,
            one.max_per_class,
            one.max_detections,
            one.clip,
            one.shown_score,
        )
        for name, one in POLICIES.items()
    }
    assert rules == {
        "detbench": ("softmax", "hard", 0.45, 200, None, 100, "after", 0.5),
        "pytorch-ssd": ("softmax", "hard", 0.45, 200, None, None, "never", 0.5),
        "pytorch-ssd-soft": ("softmax", "soft-gaussian", 0.45, None, None, None, "never", 0.5),
        "tf-object-detection": ("sigmoid", "hard", 0.6, None, 100, 100, "before", 0.3),
        "ultra-light-face": ("softmax", "hard", 0.3, 200, None, None, "never", 0.7),
    }
    assert {one.score_threshold for one in POLICIES.values()} == {0.01}


def test_a_changed_policy_says_what_was_changed() -> None:
    changed = policy("pytorch-ssd", iou_threshold=0.5, candidates=None)
    assert describe(changed) == "pytorch-ssd with iou_threshold=0.5, candidates=None"
    assert describe(POLICIES["pytorch-ssd"]) == "pytorch-ssd"
    assert describe(Decoding(policy="mine")).startswith("mine with score=softmax, ")


def test_an_unknown_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"policy 'pytorch_ssd'.*pytorch-ssd"):
        policy("pytorch_ssd")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iou_threshold": 1.5}, "iou_threshold 1.5, expected 0 to 1"),
        ({"candidates": 0}, "candidates 0, expected at least 1"),
        ({"sigma": 0.0}, "sigma 0.0, expected at least 1e-06"),
        ({"score_threshold": float("nan")}, "score_threshold nan, expected 0 to 1"),
        ({"suppression": "fuzzy"}, "cannot be changed so: Invalid enum value 'fuzzy'"),
        ({"nms": 0.3}, "cannot be changed so: .*unknown field `nms`"),
    ],
)
def test_changes_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        policy("detbench", **changes)


def test_a_manifest_from_before_the_names_reads_as_it_was_meant() -> None:
    old = {
        "score": "softmax",
        "center_variance": 0.1,
        "size_variance": 0.2,
        "score_threshold": 0.01,
        "iou_threshold": 0.45,
        "candidates": 200,
        "max_detections": 100,
    }
    assert decode(json.dumps(old).encode(), Decoding, "artifact.json") == Decoding()


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_survives_the_manifest(name: str) -> None:
    assert decode(encode(POLICIES[name]), Decoding, "artifact.json") == POLICIES[name]


def test_a_policy_in_place_of_the_artifacts_own_keeps_what_is_the_networks() -> None:
    made = empty_artifact()
    own = Decoding(score="sigmoid", size_variance=0.3, score_threshold=0.2)
    artifact = msgspec.structs.replace(made, decoding=own)
    assert decoded_by(artifact, None) is artifact
    changed = decoded_by(artifact, "pytorch-ssd").decoding
    assert changed == policy("pytorch-ssd", score="sigmoid", size_variance=0.3)
    ready = msgspec.structs.replace(artifact, output_kind="detections")
    with pytest.raises(Unsupported, match="holds its suppression in its graph"):
        decoded_by(ready, "pytorch-ssd")
