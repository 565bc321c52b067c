"""From a torch network to a TensorFlow Lite file.

The file's signature ``serving_default`` is keyed ``image`` → ``logits``, ``offsets``, or the names
of another kind of outputs. A
`TensorSpec` holds the name of the tensor that a signature key stands for, because a runtime can
look tensors up by name whether or not it knows signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporters._outputs import answers, changed_rules, kind_of
from exporters._tf_file import OUTPUTS, read_signature
from exporters._tf_graft import graft
from exporters._tf_graph import translate
from exporters._tf_tail import inside, make_tail
from exporters._tf_trace import trace
from harness.errors import ExportFailed, first_line
from harness.extras import tensorflow
from harness.interfaces import Exported, ExportJob

FILE = "model.tflite"


def export(job: ExportJob, finish: Callable[[Any, bytes], bytes]) -> Exported:
    """Convert the job's network and write `FILE`.

    Args:
        finish: given TensorFlow and the bytes of the float file of the heads, answers those that
            the tail of the option ``outputs`` is put behind.

    Raises:
        ExportFailed: see `convert`.
    """
    tf, kind = tensorflow(), kind_of(job.options)
    data = finish(tf, convert(tf, job))
    if kind != "heads":
        data = graft(data, make_tail(tf, job.spec, kind))
    signature = read_signature(data, [one.name for one in answers(job.spec, kind)])
    (job.folder / FILE).write_bytes(data)
    rules = inside(job.spec) if kind == "detections" else None
    return Exported(
        files=[FILE],
        inputs=(signature.image,),
        outputs=signature.outputs,
        toolchain={},  # the harness adds the versions of the exporter's modules
        output_kind=kind,
        decoding=rules,
        notes=changed_rules(job.spec, rules) if rules else (),
    )


def convert(tf: Any, job: ExportJob) -> bytes:
    """The bytes of a float32 file.

    Raises:
        ExportFailed: an operator that we cannot translate, or that the converter refuses.
    """
    height, width = job.spec.image.height, job.spec.image.width
    traced = trace(job.network, (1, 3, height, width))
    # The module is what the converter takes the signature from: without it the file has none.
    module = tf.Module()
    module.answer = tf.function(
        lambda image: dict(zip(OUTPUTS, translate(tf, traced, image), strict=True)),
        autograph=False,
    )
    image = tf.TensorSpec((1, height, width, 3), tf.float32, name="image")
    function = module.answer.get_concrete_function(image)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter fails with errors of many kinds, some pages long
        raise ExportFailed(
            f"TensorFlow {tf.__version__} cannot convert {job.spec.name} to TensorFlow Lite"
            f" ({first_line(error)}): replace in the network what it names"
        ) from error
