"""Exports with scores and boxes, or suppression, inside: the same detections as the harness's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.decode import decode
from harness.errors import ParityFailed
from harness.interfaces import EXPORTERS, RUNNERS, Detections, RawOutputs, RunOptions
from harness.outputs import KINDS, real, scored
from harness.parity import agreement, compare_detections
from harness.records import Artifact, Decoding, ModelSpec

Images = NDArray[np.float32]
CASES = {
    "onnx_float": ("onnx", "ort_cpu"),
    "onnx_int8": ("onnx", "ort_cpu"),
    "tflite_float": ("tensorflow", "litert_cpu"),
    "tflite_int8": ("tensorflow", "litert_cpu"),
    "torch_float": ("torch", "torch_cpu"),
}
PRECISE = 1e-4
"""Relative error of a float export."""


@pytest.fixture(scope="session")
def crowded(tiny_spec: ModelSpec) -> ModelSpec:
    """Few candidates, a low threshold and places enough for all: every rule of the policy acts."""
    rules = Decoding(candidates=8, score_threshold=0.15, iou_threshold=0.3, max_detections=60)
    return dataclasses.replace(tiny_spec, name="crowded", decoding=rules)


@pytest.fixture(scope="session")
def reference(tiny_spec: ModelSpec, tiny_images: Images) -> RawOutputs:
    import torch

    with torch.inference_mode():
        logits, offsets = tiny_spec.build()(torch.from_numpy(tiny_images))
    return RawOutputs(logits.numpy(), offsets.numpy())


def run(artifact: Artifact, folder: Path, images: Images) -> tuple[NDArray[Any], ...]:
    runner = RUNNERS.get(CASES[artifact.exporter][1])()
    fed = images.transpose(0, 2, 3, 1) if artifact.inputs[0].layout == "NHWC" else images
    with runner.open(artifact, folder, RunOptions()) as session:
        answers = [session.run(np.ascontiguousarray(image[None])) for image in fed]
    for array, spec in zip(answers[0], artifact.outputs, strict=True):
        assert (array.shape, array.dtype) == (spec.shape, spec.dtype)
    return tuple(np.concatenate(arrays) for arrays in zip(*answers, strict=True))


def export(name: str, make: Any, spec: ModelSpec, calibration: Any, **options: Any) -> Any:
    pytest.importorskip(CASES[name][0], reason="the exporter's toolchain")
    return make(name, spec, calibration if name.endswith("int8") else None, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_scores_and_boxes_are_those_of_the_harness(
    name: str,
    crowded: ModelSpec,
    export_artifact: Any,
    tiny_calibration: Any,
    tiny_images: Images,
    reference: RawOutputs,
) -> None:
    artifact, folder = export(
        name, export_artifact, crowded, tiny_calibration, outputs="scored_boxes"
    )
    assert artifact.output_kind == "scored_boxes"
    assert [spec.layout for spec in artifact.outputs] == ["NPC", "NPC"]
    got = run(artifact, folder, tiny_images)
    expected = scored(artifact, crowded.priors, reference)
    scores, boxes = real(artifact, got)
    loose = 1 if artifact.precision == "float32" else 2000
    assert np.abs(scores[..., 1:] - expected.scores[..., 1:]).max() < PRECISE * loose
    assert np.abs(boxes - expected.boxes).max() < PRECISE * loose
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-4)
    found = KINDS["scored_boxes"].compare(artifact, crowded.priors, reference, got)
    assert {item.metric for item in found} >= {"parity.scores.sqnr_db", "parity.boxes.sqnr_db"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "torch_float"])
def test_suppression_inside_finds_what_the_harness_finds(
    name: str,
    crowded: ModelSpec,
    export_artifact: Any,
    tiny_calibration: Any,
    tiny_images: Images,
    reference: RawOutputs,
) -> None:
    artifact, folder = export(
        name, export_artifact, crowded, tiny_calibration, outputs="detections"
    )
    assert artifact.output_kind == "detections"
    limit = None if "tflite" in name else 8
    assert artifact.decoding == msgspec.structs.replace(crowded.decoding, candidates=limit)
    changed = [note for note in artifact.notes if note.startswith("suppression inside the file:")]
    assert len(changed) == (limit is None)
    got = run(artifact, folder, tiny_images)
    sizes = [(32, 32)] * len(tiny_images)
    if artifact.precision == "int8":  # the file's own heads: rounding moves what is crowded so
        reference = RawOutputs(
            *run(*export(name, export_artifact, crowded, tiny_calibration), tiny_images)
        )
    expected = decoded(artifact, crowded, reference)
    found = KINDS["detections"].detections(artifact, crowded.priors, got, sizes)
    assert min(len(one.scores) for one in expected) > 15
    changes = compare_detections(expected, found)
    assert (changes.lost, changes.new, changes.moved, changes.rescored) == (0, 0, 0, 0)
    for one, two in zip(expected, found, strict=True):
        assert len(one.scores) == len(two.scores)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
        np.testing.assert_array_equal(one.labels, two.labels)


def decoded(artifact: Artifact, spec: ModelSpec, heads: RawOutputs) -> list[Detections]:
    """What the harness makes of raw heads by the rules in the artifact's manifest."""
    sizes = [(32, 32)] * len(heads.logits)
    return decode(heads, priors=spec.priors, decoding=artifact.decoding, sizes=sizes)


def test_the_candidate_limit_is_inside_the_onnx_graph(
    crowded: ModelSpec,
    export_artifact: Any,
    tiny_images: Images,
    reference: RawOutputs,
) -> None:
    """With the limit that the manifest states, and not without it, detections are the same."""
    artifact, folder = export("onnx_float", export_artifact, crowded, None, outputs="detections")
    rules = msgspec.structs.replace(artifact.decoding, candidates=None)
    unlimited = msgspec.structs.replace(artifact, decoding=rules)
    got = run(artifact, folder, tiny_images)
    assert KINDS["detections"].compare(artifact, crowded.priors, reference, got)
    limited = decoded(artifact, crowded, reference)
    free = decoded(unlimited, crowded, reference)
    assert agreement(limited, free) < 0.99
    with pytest.raises(ParityFailed, match="detections agree to"):
        KINDS["detections"].compare(unlimited, crowded.priors, reference, got)


@pytest.mark.slow
def test_pytorch_ssd_names_its_blobs(
    crowded: ModelSpec, export_artifact: Any, tiny_images: Images
) -> None:
    onnx = pytest.importorskip("onnx")
    artifact, folder = export(
        "onnx_float", export_artifact, crowded, None, outputs="scored_boxes", names="pytorch-ssd"
    )
    graph = onnx.load(folder / "model.onnx").graph
    assert [one.name for one in graph.input] == ["input_0"]
    assert [one.name for one in graph.output] == ["scores", "boxes"]
    assert artifact.inputs[0].name == "input_0"
    assert len(run(artifact, folder, tiny_images[:1])) == 2


def test_an_integer_file_keeps_its_image_in_int8(
    crowded: ModelSpec, export_artifact: Any, tiny_calibration: Any
) -> None:
    artifact, _ = export(
        "tflite_int8",
        export_artifact,
        crowded,
        tiny_calibration,
        outputs="scored_boxes",
        io="int8",
    )
    assert artifact.inputs[0].dtype == "int8"
    assert {spec.dtype for spec in artifact.outputs} == {"float32"}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("onnx_float", {"outputs": "nms"}, "give heads or scored_boxes or detections"),
        ("onnx_float", {"outputs": "detections", "batch": 4}, "takes one image: give batch=1"),
        ("onnx_int8", {"names": "jetson"}, "give detbench or pytorch-ssd"),
        ("onnx_float", {"names": "pytorch-ssd"}, "give outputs=scored_boxes"),
        ("tflite_int8", {"outputs": "boxes"}, "option outputs=boxes of tflite_int8 cannot be made"),
        ("torch_float", {"outputs": "detections"}, "give heads or scored_boxes"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_work(
    name: str, options: dict[str, Any], said: str, crowded: ModelSpec
) -> None:
    exporter = EXPORTERS.get(name)()
    assert said in str(exporter.unsupported(crowded, {**exporter.options, **options}))


def test_soft_suppression_stays_outside(crowded: ModelSpec) -> None:
    rules = msgspec.structs.replace(crowded.decoding, suppression="soft-gaussian")
    soft = dataclasses.replace(crowded, decoding=rules)
    exporter = EXPORTERS.get("tflite_float")()
    assert "has no soft-gaussian suppression" in str(
        exporter.unsupported(soft, {"outputs": "detections"})
    )
    assert exporter.unsupported(soft, {"outputs": "scored_boxes"}) is None


def test_rules_that_a_graph_cannot_follow_are_noted(crowded: ModelSpec) -> None:
    from exporters._onnx_tail import inside as inside_onnx
    from exporters._outputs import changed_rules
    from exporters._tf_tail import inside

    rules = msgspec.structs.replace(
        crowded.decoding, iou_epsilon=1e-5, max_detections=None, clip="before"
    )
    other = dataclasses.replace(crowded, decoding=rules)
    assert [
        note.split(": ")[1].split(" is ")[0] for note in changed_rules(other, inside(other))
    ] == [
        "iou_epsilon",
        "candidates",
        "max_detections",
        "clip",
    ]
    assert inside_onnx(other).clip == "before"
