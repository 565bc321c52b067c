"""TensorFlow Lite, float32.

Format: https://ai.google.dev/edge/litert (Apache-2.0). Our own path to it, `torch.export` →
TensorFlow → `tf.lite.TFLiteConverter`, gives the operators that a network written in TensorFlow
gives: batch norms folded, ReLU6 fused, no transposes. `docs/decisions` compares the alternatives.
Option ``outputs`` as `exporters._outputs` says. Tensors: image (1, h, w, 3) float32; logits
(1, priors, classes), offsets (1, priors, 4), or what ``outputs`` names, float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from exporters._outputs import bad_outputs
from exporters._tf_lite import export
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.records import ModelSpec, Options, Scalar


@EXPORTERS.register
class TfliteFloat(Exporter):
    """Float32 weights and activations."""

    name = "tflite_float"
    format = "tflite"
    precision: ClassVar[Literal["float32", "int8"]] = "float32"
    modules = ("torch", "tensorflow")
    extra = "tflite"
    typical_export_s = 30.0
    options: ClassVar[Options] = {"outputs": "heads"}

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """Outputs that cannot be made."""
        return bad_outputs(self.name, spec, options)

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.tflite``."""
        return export(job, lambda _, data: data)
