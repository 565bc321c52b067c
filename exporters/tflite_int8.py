"""TensorFlow Lite, full integer: int8 weights per output channel, int8 activations per tensor.

Format: https://ai.google.dev/edge/litert/models/post_training_quantization (Apache-2.0); scheme of
Jacob et al. 2018, arXiv 1712.05877. Options: ``calibration`` chooses the ranges of activations
(`harness.ranges`), ``keep_float`` names layers that stay float (`exporters._keep_float`). Tensors:
image (1, h, w, 3); logits (1, priors, classes), offsets (1, priors, 4); float32 with one QUANTIZE
and two DEQUANTIZE inside (``io=float32``), or int8 with scale and zero point (``io=int8``), which
NPUs want. What the option ``outputs`` adds (`exporters._outputs`) stays in float, so that ``io`` is
the image's alone there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from exporters._capture import bad_choice
from exporters._keep_float import kept
from exporters._outputs import bad_outputs, kind_of
from exporters._tf_file import layer_tensors, operators
from exporters._tf_lite import export
from exporters._tf_ranges import with_ranges
from harness.errors import ExportFailed, first_line
from harness.extras import require
from harness.interfaces import EXPORTERS, Exported, Exporter, ExportJob
from harness.ranges import METHODS_OF
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
    modules = ("torch", "tensorflow", "ai_edge_litert")
    extra = "tflite"
    typical_export_s = 50.0
    options: ClassVar[Options] = {
        "io": "float32",
        "outputs": "heads",
        "calibration": "mse",
        "keep_float": None,
    }

    def unsupported(self, spec: ModelSpec, options: Mapping[str, Scalar]) -> str | None:
        """Only the two data types of ``io``; outputs that cannot be made."""
        if options["io"] not in IO:
            return f"option io of {self.name} is {' or '.join(IO)}, not {options['io']!r}"
        return bad_choice("calibration", options["calibration"], METHODS_OF) or bad_outputs(
            self.name, spec, options
        )

    def export(self, job: ExportJob) -> Exported:
        """Write ``model.tflite``, all of whose arithmetic is integer."""
        calibration = job.calibration
        if calibration is None:
            raise ExportFailed(f"{self.name} needs calibration images: name a data set for them")

        keep = kept(job)

        def quantized(tf: Any, data: bytes) -> bytes:
            ranged = with_ranges(data, _nhwc(calibration), str(job.options["calibration"]))
            io = getattr(tf, str(job.options["io"]))
            answered = io if kind_of(job.options) == "heads" else tf.float32
            return _quantize(ranged, io, answered, layer_tensors(ranged, keep))

        return export(job, quantized)


def _nhwc(
    calibration: Callable[[], Iterator[NDArray[np.float32]]],
) -> Iterator[NDArray[np.float32]]:
    return (np.ascontiguousarray(image.transpose(0, 2, 3, 1)) for image in calibration())


def _quantize(data: bytes, given: Any, answered: Any, keep: Collection[str]) -> bytes:
    """The integer file of a float file with ranges; TensorFlow's data types at its two ends.

    Args:
        keep: tensors whose operators stay float.

    Raises:
        ExportFailed: the quantizer refuses, or leaves an operator in float.
    """
    # No public name; it is what the public converter calls once its calibrator has run.
    convert = require("tensorflow.lite.python.convert", extra="tflite")
    try:
        made = bytes(
            convert.mlir_quantize(
                data,
                input_data_type=given,
                output_data_type=answered,
                denylisted_nodes=set(keep),
            )
        )
    except Exception as error:  # the quantizer fails with errors of many kinds, some pages long
        raise ExportFailed(
            f"TensorFlow cannot quantize the network ({first_line(error)}): use tflite_float"
        ) from error
    left = sorted(
        {
            operator.name
            for operator in operators(made)
            if operator.name not in EDGES and "FLOAT32" in operator.inputs + operator.outputs
        }
    )
    if left and not keep:
        raise ExportFailed(
            f"the converter left {', '.join(left)} in float, expected integers only:"
            " use tflite_float, or replace the operator in the network"
        )
    return made
