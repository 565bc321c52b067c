"""What ``outputs=scored_boxes`` and ``outputs=detections`` add to a TensorFlow Lite file.

The tail is converted as a file of its own, from logits and offsets in float32, and grafted onto the
file of the heads (`exporters._tf_graft`): a quantized file so keeps its tail in float. Suppression
is the custom operator ``TFLite_Detection_PostProcess`` of TensorFlow's Object Detection, which
every TensorFlow Lite runtime has built in. It follows `harness.decode` but for these: it has no
limit of candidates per class and does not cut boxes to the image (`inside` says so); it takes
scores at the threshold too, and boxes outside the image are not dropped before suppression.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters._outputs import BoxRule, answers, rules_inside
from harness.errors import ExportFailed, first_line
from harness.records import Decoding, ModelSpec, OutputKind

CUSTOM = "TFLite_Detection_PostProcess"


def inside(spec: ModelSpec) -> Decoding:
    """The decoding that the custom operator follows for this model."""
    return rules_inside(spec, candidates=False, clips=False)


def make_tail(tf: Any, spec: ModelSpec, kind: OutputKind) -> bytes:
    """The tail as a file whose signature is ``logits``, ``offsets`` → the names of the kind.

    Raises:
        ExportFailed: the converter refuses.
    """
    finish = _detections if kind == "detections" else _scored_boxes
    module = tf.Module()
    module.answer = tf.function(
        lambda logits, offsets: finish(tf, spec, logits, offsets), autograph=False
    )
    heads = (tf.TensorSpec(one.shape, tf.float32, name=one.name) for one in answers(spec, "heads"))
    function = module.answer.get_concrete_function(*heads)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.allow_custom_ops = True
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter fails with errors of many kinds, some pages long
        raise ExportFailed(
            f"TensorFlow {tf.__version__} cannot convert outputs={kind} of {spec.name}"
            f" ({first_line(error)}): use outputs=heads"
        ) from error


def _scores(tf: Any, spec: ModelSpec, logits: Any) -> Any:
    return tf.nn.softmax(logits) if spec.decoding.score == "softmax" else tf.sigmoid(logits)


def _scored_boxes(tf: Any, spec: ModelSpec, logits: Any, offsets: Any) -> dict[str, Any]:
    rule = BoxRule(spec)
    centre = offsets[..., :2] * rule.step + rule.centre
    half = tf.exp(offsets[..., 2:] * rule.growth) * rule.half
    boxes = tf.concat([centre - half, centre + half], axis=2)
    return {"scores": _scores(tf, spec, logits), "boxes": boxes}


def _detections(tf: Any, spec: ModelSpec, logits: Any, offsets: Any) -> dict[str, Any]:
    rules = inside(spec)
    places = rules.max_detections
    whole = {
        "max_detections": places,
        "detections_per_class": rules.max_per_class or places,
        "max_classes_per_detection": 1,
        "num_classes": len(spec.labels) - 1,
    }
    real = {
        "nms_score_threshold": rules.score_threshold,
        "nms_iou_threshold": rules.iou_threshold,
        "y_scale": 1 / rules.center_variance,
        "x_scale": 1 / rules.center_variance,
        "h_scale": 1 / rules.size_variance,
        "w_scale": 1 / rules.size_variance,
    }
    attributes = [
        *(_attribute(name, f"i: {value}") for name, value in whole.items()),
        *(_attribute(name, f"f: {value!r}") for name, value in real.items()),
        _attribute("use_regular_nms", "b: true"),
    ]

    # The converter replaces a function that says what it implements by that custom operator.
    implemented = " ".join([f'name: "{CUSTOM}"', *attributes])

    @tf.function(autograph=False, experimental_implements=implemented)  # type: ignore[untyped-decorator]  # tf is Any
    def suppressed(boxes: Any, scores: Any, anchors: Any) -> tuple[Any, ...]:
        del boxes, scores, anchors
        return tuple(tf.zeros(one.shape) for one in answers(spec, "detections"))

    turned = tf.gather(offsets, [1, 0, 3, 2], axis=2)  # the operator wants y before x
    anchors = tf.constant(np.ascontiguousarray(spec.priors[:, [1, 0, 3, 2]], np.float32))
    found = suppressed(turned, _scores(tf, spec, logits), anchors)
    names = (one.name for one in answers(spec, "detections"))
    return dict(zip(names, found, strict=True))


def _attribute(name: str, value: str) -> str:
    return f'attr {{ key: "{name}" value {{ {value} }} }}'
