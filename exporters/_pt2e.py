"""Post-training quantization of a captured graph by torchao's PT2E."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from exporters._capture import calibration_images, capture, check_calibration, toolchain
from exporters._fold import prune
from exporters._int8_sums import saturates
from harness.extras import require
from harness.interfaces import ExportJob
from harness.machine import machine_record

_PT2E = "torchao.quantization.pt2e"


def quantize(job: ExportJob) -> Any:
    """The quantized graph as an ``ExportedProgram``, calibrated on the job's images.

    Weights are stored as int8; the float ones that PT2E leaves behind are removed. Compiled
    (``package=aoti``), activations have the bits that integer sums on this CPU leave room for; kept
    as a graph, every convolution is computed in float and nothing can overflow.
    """
    check_calibration(job)
    with toolchain("PT2E", job.spec.name):
        torch = require("torch", extra="torch")
        steps = require(f"{_PT2E}.quantize_pt2e", extra="torch")
        x86 = require(f"{_PT2E}.quantizer.x86_inductor_quantizer", extra="torch")
        quantizer = x86.X86InductorQuantizer()
        reduced = job.options["package"] == "aoti" and saturates(machine_record())
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=reduced))
        module = capture(job.network, job.spec).module(check_guards=False)
        module = steps.prepare_pt2e(module, quantizer)
        with torch.no_grad(), _one_thread(torch):
            for image in calibration_images(job):
                module(torch.from_numpy(image))
        module = steps.convert_pt2e(module)
        prune(module)
        return capture(module, job.spec)


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Observers run thousands of short operators; on a busy machine, threads that wait for each
    other after every one of them cost many times what they save.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
