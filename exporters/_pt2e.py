"""Post-training quantization of a captured graph by torchao's PT2E."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from exporters._capture import calibration_images, capture, check_calibration, toolchain
from exporters._fold import prune
from exporters._int8_sums import saturates
from exporters._keep_float import kept
from harness.extras import require
from harness.interfaces import ExportJob
from harness.machine import machine_record
from harness.ranges import Observed, choose

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
        config = x86.get_default_x86_inductor_quantization_config(reduce_range=reduced(job))
        quantizer.set_global(config)
        module = capture(job.network, job.spec).module(check_guards=False)
        for layer in kept(job):
            quantizer.set_module_name_qconfig(layer, None)
        module = steps.prepare_pt2e(module, quantizer)
        observers = _watch(module, str(job.options["calibration"]))
        with torch.no_grad(), _one_thread(torch):
            for image in calibration_images(job):
                module(torch.from_numpy(image))
        for observer in observers:
            observer.settle()
        module = steps.convert_pt2e(module)
        prune(module)
        return capture(module, job.spec)


def reduced(job: ExportJob) -> bool:
    """Whether activations have 7 bits: see `quantize`."""
    return job.options["package"] == "aoti" and saturates(machine_record())


class _Watched:
    """Takes an observer's place in choosing its range, by `harness.ranges`."""

    def __init__(self, observer: Any, method: str, generator: np.random.Generator) -> None:
        self._observer, self._method, self._generator = observer, method, generator
        self._seen = Observed()
        observer.forward = self._see

    def _see(self, values: Any) -> Any:
        self._seen.see(values.detach().numpy(), self._generator)
        return values

    def settle(self) -> None:
        """Choose, once all images were seen."""
        torch = require("torch", extra="torch")
        observer = self._observer
        steps = observer.quant_max - observer.quant_min
        low, high = (
            choose([self._seen], self._method, steps=steps) if self._seen.samples else (0, 1)
        )
        scale = max((high - low) / steps, float(observer.eps))
        zero = min(
            max(observer.quant_min - round(low / scale), observer.quant_min), observer.quant_max
        )
        found = torch.tensor([scale]), torch.tensor([zero], dtype=torch.int64)
        observer.calculate_qparams = lambda: found


def _watch(module: Any, method: str) -> list[_Watched]:
    """Every observer of activations in a prepared graph; those of weights look at weights alone."""
    generator = np.random.default_rng(0)
    observers = {
        id(part): part for part in module.modules() if type(part).__name__ == "HistogramObserver"
    }
    return [_Watched(observer, method, generator) for observer in observers.values()]


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
