"""TensorFlow Lite, full integer: int8 weights per output channel, int8 activations per tensor.

Format: https://ai.google.dev/edge/litert/models/post_training_quantization (Apache-2.0); scheme of
Jacob et al. 2018, arXiv 1712.05877. The ranges of the activations are the extremes over the
calibration images. Tensors: image (1, h, w, 3); logits (1, priors, classes), offsets
(1, priors, 4); float32 with one QUANTIZE and two DEQUANTIZE inside (``io=float32``), or int8 with
scale and zero point (``io=int8``), which NPUs want.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from exporters._tf_lite import FILE, export, operators
from harness.errors import ExportFailed
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.records import ModelSpec, Options, Scalar

IO = ("float32", "int8")
EDGES = {"QUANTIZE", "DEQUANTIZE"}


@EXPORTERS.register
class TfliteInt8(Exporter):
    """Calibrated on images; option ``io``: data type of the image and the outputs."""

    name = "tflite_int8"
    format = "tflite"
    precision: ClassVar[Literal["float32", "int8"]] = "int8"
    calibrates = True
    modules = ("torch", "tensorflow")
    extra = "tflite"
    options: ClassVar[Options] = {"io": "float32"}

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """Only the two data types of ``io``."""
        del spec  # any model
        if options["io"] not in IO:
            return f"option io of {self.name} is {' or '.join(IO)}, not {options['io']!r}"
        return None

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.tflite``, all of whose arithmetic is integer."""
        calibration = job.calibration
        if calibration is None:
            raise ExportFailed(f"{self.name} needs calibration images: name a data set for them")

        def configure(tf: Any, converter: Any) -> None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: _nhwc(calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            io = getattr(tf, str(job.options["io"]))
            converter.inference_input_type = converter.inference_output_type = io

        exported = export(job, configure)
        _refuse_float((job.folder / FILE).read_bytes())
        return exported


def _nhwc(calibration: Callable[[], Iterator[NDArray[np.float32]]]) -> Iterator[list[Any]]:
    """The calibration images in NHWC, each in a list of one, as the converter wants them."""
    empty = True
    for image in calibration():
        empty = False
        yield [np.ascontiguousarray(image.transpose(0, 2, 3, 1))]
    if empty:
        raise ExportFailed("there are no calibration images: name a data set that has some")


def _refuse_float(data: bytes) -> None:
    """Raise ExportFailed where an operator between the file's edges computes in float."""
    left = sorted(
        {
            operator.name
            for operator in operators(data)
            if operator.name not in EDGES and "FLOAT32" in operator.inputs + operator.outputs
        }
    )
    if left:
        raise ExportFailed(
            f"the converter left {', '.join(left)} in float, expected integers only:"
            " use tflite_float, or replace the operator in the network"
        )
