"""What ``outputs=scored_boxes`` and ``outputs=detections`` add to an ONNX model of the heads.

A graph of its own, merged behind the heads, so that a quantized model keeps its tail in float.
Operators: https://onnx.ai/onnx/operators (Apache-2.0). Suppression inside the graph follows
`harness.decode` but for exact ties of scores, and boxes outside the image are not dropped before
it. The limit of candidates per class is pytorch-ssd's: scores below the k-th are set to 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporters._capture import INPUT, bad_choice, tensors, toolchain
from exporters._onnx import FILE
from exporters._outputs import (
    BoxRule,
    answers,
    bad_outputs,
    changed_rules,
    kind_of,
    rules_inside,
)
from harness.extras import require
from harness.interfaces import Exported, ExportJob
from harness.records import Decoding, ModelSpec, Options, OutputKind, Scalar

NAMES = {"detbench": INPUT, "pytorch-ssd": "input_0"}
"""Values of the option ``names`` with the name of the image; outputs are named by their kind."""
OPTIONS: Options = {"outputs": "heads", "names": "detbench"}


def bad_tail(exporter: str, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
    """Why the options ``outputs`` and ``names`` cannot be followed, or None."""
    if wrong := bad_outputs(exporter, spec, options) or bad_choice(
        "names", options["names"], NAMES
    ):
        return wrong
    if options["names"] == "pytorch-ssd" and options["outputs"] != "scored_boxes":
        return "option names=pytorch-ssd names input_0, scores and boxes: give outputs=scored_boxes"
    return None


def exported(job: ExportJob, batch: int = 1) -> Exported:
    """What to say of the file `attach` made."""
    kind = kind_of(job.options)
    (image,), _ = tensors(job.spec, batch)
    rules = inside(job.spec) if kind == "detections" else None
    return Exported(
        files=[FILE],
        inputs=(msgspec.structs.replace(image, name=NAMES[str(job.options["names"])]),),
        outputs=answers(job.spec, kind, batch),
        toolchain={},
        output_kind=kind,
        decoding=rules,
        notes=changed_rules(job.spec, rules) if rules else (),
    )


def inside(spec: ModelSpec) -> Decoding:
    """The decoding that suppression inside the graph follows for this model."""
    return rules_inside(spec, candidates=True, clips=True)


def attach(model: Any, job: ExportJob, batch: int = 1) -> Any:
    """The model of the heads with the tail and the names that the options ask for, checked."""
    onnx, kind = require("onnx", extra="onnx"), kind_of(job.options)
    with toolchain("onnx.compose", job.spec.name):
        if kind != "heads":
            tail = _Tail(onnx, job.spec, model)
            finished = tail.build(kind, batch)
            links = [("logits", "tail_logits"), ("offsets", "tail_offsets")]
            model = onnx.compose.merge_models(model, finished, links)
        _rename_input(model, NAMES[str(job.options["names"])])
        onnx.checker.check_model(model, full_check=True)
    return model


def _rename_input(model: Any, name: str) -> None:
    (image,) = (value for value in model.graph.input)
    for node in model.graph.node:
        node.input[:] = [name if used == image.name else used for used in node.input]
    image.name = name


class _Tail:
    """Nodes and constants of a tail, in the order of execution."""

    def __init__(self, onnx: Any, spec: ModelSpec, model: Any) -> None:
        self._onnx, self._spec, self._model = onnx, spec, model
        self._rules = inside(spec)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self, kind: OutputKind, batch: int) -> Any:
        """A ``ModelProto`` with the versions of the heads' model."""
        helper, spec = self._onnx.helper, self._spec
        if kind == "scored_boxes":
            self._scored_boxes("scores", "boxes")
        else:
            self._scored_boxes("tail_scores", "tail_boxes")
            self._detections("tail_scores", "tail_boxes")
        sides = {
            side: [self._value(name, shape) for name, shape in pairs]
            for side, pairs in (
                (
                    "inputs",
                    [(f"tail_{t.name}", t.shape) for t in answers(spec, "heads", batch)],
                ),
                ("outputs", [(t.name, t.shape) for t in answers(spec, kind, batch)]),
            )
        }
        graph = helper.make_graph(
            self._nodes, "tail", sides["inputs"], sides["outputs"], self._constants
        )
        opsets = [helper.make_opsetid(one.domain, one.version) for one in self._model.opset_import]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self._model.ir_version)

    def _value(self, name: str, shape: tuple[int, ...]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, shape)

    def _add(
        self, operator: str, *inputs: str, name: str = "", outputs: int = 1, **options: Any
    ) -> str:
        """A node; answers the name of its first output, ``name`` or one of its own."""
        name = name or f"tail_{len(self._nodes)}"
        made = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self._nodes.append(
            self._onnx.helper.make_node(operator, inputs, made, name=f"tail_node_{name}", **options)
        )
        return name

    def _constant(self, value: NDArray[Any] | float | list[int]) -> str:
        name = f"tail_constant_{len(self._constants)}"
        array = np.array(value, np.int64 if isinstance(value, list) else np.float32)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _scored_boxes(self, scores: str, boxes: str) -> None:
        rule = BoxRule(self._spec)
        if self._spec.decoding.score == "softmax":
            self._add("Softmax", "tail_logits", name=scores, axis=2)
        else:
            self._add("Sigmoid", "tail_logits", name=scores)
        halves = self._constant([2, 2])
        move = self._add("Split", "tail_offsets", halves, outputs=2, axis=2)
        shift = self._add("Mul", move, self._constant(rule.step))
        centre = self._add("Add", shift, self._constant(rule.centre))
        growth = self._add("Exp", self._add("Mul", f"{move}_1", self._constant(rule.growth)))
        half = self._add("Mul", growth, self._constant(rule.half))
        low, high = self._add("Sub", centre, half), self._add("Add", centre, half)
        self._add("Concat", low, high, name=boxes, axis=2)

    def _detections(self, scores: str, boxes: str) -> None:
        """From (1, priors, classes) scores and (1, priors, 4) corner boxes."""
        rules, places = self._rules, self._rules.max_detections or 0
        likely = self._candidates(scores)
        if rules.clip == "before":
            boxes = self._add("Clip", boxes, self._constant(0.0), self._constant(1.0))
        chosen = self._add(
            "NonMaxSuppression",
            boxes,
            likely,
            self._constant([rules.max_per_class or places]),
            self._constant(rules.iou_threshold),
            self._constant(rules.score_threshold),
        )
        labels = self._column(chosen, 1)
        rows = self._column(chosen, 2)
        corners = self._add("Squeeze", boxes, self._constant([0]))
        swapped = self._add("Gather", corners, self._constant([1, 0, 3, 2]), axis=1)
        chosen_boxes = self._add("Gather", swapped, rows, axis=0)
        # places without a detection come last: their score is below every real one
        values = self._padded(self._add("GatherND", likely, chosen), np.full(places, -1.0))
        best = self._add("TopK", values, self._constant([places]), outputs=2, axis=0)
        found = self._add("Greater", best, self._constant(0.0))
        self._add("ReduceSum", self._float(found), self._constant([0]), name="number", keepdims=1)
        classes = self._padded(self._float(labels), np.zeros(places))
        for name, source in (
            ("boxes", self._padded(chosen_boxes, np.zeros((places, 4)))),
            ("classes", classes),
        ):
            picked = self._add("Gather", source, f"{best}_1", axis=0)
            self._add("Unsqueeze", picked, self._constant([0]), name=name)
        shown = self._add("Relu", best)
        self._add("Unsqueeze", shown, self._constant([0]), name="scores")

    def _candidates(self, scores: str) -> str:
        """(1, classes - 1, priors) scores, 0 where a prior is not among its class's best."""
        limit = self._rules.candidates
        turned = self._add("Transpose", scores, perm=[0, 2, 1])
        classes = len(self._spec.labels)
        ends = (self._constant([value]) for value in (1, classes, 1))
        real = self._add("Slice", turned, *ends)
        if limit is None or len(self._spec.priors) <= limit:
            return real
        best = self._add("TopK", real, self._constant([limit]), outputs=2, axis=2)
        least = self._add("Gather", best, self._constant([limit - 1]), axis=2)
        enough = self._add("GreaterOrEqual", real, least)
        return self._add("Where", enough, real, self._constant(0.0))

    def _column(self, table: str, index: int) -> str:
        picked = self._add("Gather", table, self._constant([index]), axis=1)
        return self._add("Squeeze", picked, self._constant([1]))

    def _padded(self, values: str, padding: NDArray[Any]) -> str:
        return self._add("Concat", values, self._constant(padding), axis=0)

    def _float(self, values: str) -> str:
        return self._add("Cast", values, to=self._onnx.TensorProto.FLOAT)
