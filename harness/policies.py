"""The decoding policies by name: what each family of detectors does with its network's outputs.

A model names its policy, the artifact's manifest carries it whole, and every runtime follows it.

The score threshold is that of an evaluation, 0.01, in all of them: mean average precision counts
low scores too. What an application shows begins at ``shown_score``. Hard suppression makes the two
one: a box is only ever suppressed by a better one, so that cutting after it leaves exactly what
cutting before it does.

- ``detbench``: hard suppression at 0.45 among 200 candidates a class; boxes are cut to the image.
- ``pytorch-ssd`` (qfgaohao): the same, but 1e-5 is added to the union of relative boxes, nothing is
  cut to the image and all that survives counts. One difference: a box that lies wholly outside its
  image is dropped here.
- ``pytorch-ssd-soft``: its ``--nms_method soft``: Gaussian, without a limit of candidates.
- ``tf-object-detection``: the post-processing of TensorFlow's SSD configurations of 2018: sigmoid,
  boxes cut to the image first, hard suppression at 0.6, 100 a class and 100 in all, best first.
- ``ultra-light-face`` (Linzaer): softmax, 200 candidates, hard suppression at 0.3, shown from 0.7.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.errors import BadConfig, UnknownName, Unsupported
from harness.records import Artifact, Decoding
from harness.registry import suggest

POLICIES: dict[str, Decoding] = {
    one.policy: one
    for one in (
        Decoding(),
        Decoding(policy="pytorch-ssd", iou_epsilon=1e-5, max_detections=None, clip="never"),
        Decoding(
            policy="pytorch-ssd-soft",
            suppression="soft-gaussian",
            iou_epsilon=1e-5,
            candidates=None,
            max_detections=None,
            clip="never",
        ),
        Decoding(
            policy="tf-object-detection",
            score="sigmoid",
            shown_score=0.3,
            iou_threshold=0.6,
            candidates=None,
            max_per_class=100,
            clip="before",
        ),
        Decoding(
            policy="ultra-light-face",
            shown_score=0.7,
            iou_threshold=0.3,
            iou_epsilon=1e-5,
            max_detections=None,
            clip="never",
        ),
    )
}


def policy(name: str, **changes: Any) -> Decoding:
    """The policy called ``name``, with ``changes`` to its fields, checked.

    Raises:
        UnknownName: no such policy.
        BadConfig: a field that there is not, or a value that it cannot have.
    """
    if name not in POLICIES:
        raise UnknownName(f"unknown decoding policy '{name}': {suggest(name, POLICIES)}")
    plain = {**msgspec.to_builtins(POLICIES[name]), **changes, "policy": name}
    try:
        changed = msgspec.convert(plain, Decoding)
    except msgspec.ValidationError as error:
        raise BadConfig(f"decoding policy '{name}' cannot be changed so: {error}") from None
    check(changed)
    return changed


def decoded_by(artifact: Artifact, name: str | None) -> Artifact:
    """``artifact`` with the policy called ``name`` in place of its own; as it is without a name.

    What belongs to the network stays: how it scores, and the scale of its offsets.

    Raises:
        UnknownName: no such policy.
        Unsupported: the artifact's own graph decodes.
    """
    if name is None:
        return artifact
    if artifact.output_kind == "detections":
        raise Unsupported(
            f"{artifact.id} holds its suppression in its graph, so it cannot be decoded by"
            f" '{name}': export it without"
        )
    own = artifact.decoding
    kept = {key: getattr(own, key) for key in ("score", "center_variance", "size_variance")}
    return msgspec.structs.replace(artifact, decoding=policy(name, **kept))


def check(decoding: Decoding) -> None:
    """Refuse values that make no sense.

    Raises:
        BadConfig: one sentence with field and value.
    """
    shares = ("score_threshold", "shown_score", "iou_threshold")
    counts = ("candidates", "max_per_class", "max_detections")
    for field, least, most in (
        *((field, 0.0, 1.0) for field in shares),
        *((field, 1, float("inf")) for field in counts),
        ("iou_epsilon", 0.0, float("inf")),
        ("sigma", 1e-6, float("inf")),
        ("center_variance", 1e-6, float("inf")),
        ("size_variance", 1e-6, float("inf")),
    ):
        value = getattr(decoding, field)
        if value is not None and not least <= value <= most:
            expected = f"{least:g} to {most:g}" if most < float("inf") else f"at least {least:g}"
            raise BadConfig(f"decoding has {field} {value}, expected {expected}")


def describe(decoding: Decoding) -> str:
    """``pytorch-ssd`` or ``pytorch-ssd with iou_threshold=0.5``: the policy and what was changed.

    A policy of another origin, which no name here stands for, is described in full.
    """
    plain = msgspec.to_builtins(decoding)
    base = POLICIES.get(decoding.policy)
    known = msgspec.to_builtins(base) if base else {"policy": decoding.policy}
    changed = [f"{key}={value}" for key, value in plain.items() if known.get(key, ...) != value]
    return f"{decoding.policy} with {', '.join(changed)}" if changed else decoding.policy
