"""What layers answer in TVM's virtual machine, which calls back after each kernel.

The manifest says which kernel leaves which layer's result where (`harness.layer_records`), so these
are the numbers of the module as it is shipped, kernels that several layers share and all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.layer_records import LayerOutput


def trace(
    machine: Any,
    run: Callable[[NDArray[Any]], object],
    outputs: Sequence[LayerOutput],
    images: Iterable[NDArray[Any]],
) -> Iterator[dict[str, NDArray[Any]]]:
    """For each image, real values by layer, (1, channels, height, width)."""
    wanted = {(output.kernel, output.call): output for output in outputs}
    calls: Counter[str] = Counter()
    values: dict[str, NDArray[Any]] = {}

    def watch(_function: Any, name: str, before: bool, _answer: Any, *arguments: Any) -> None:
        if before:
            return
        output = wanted.get((name, calls[name]))
        calls[name] += 1
        if output is not None:
            values[output.layer] = take(output, [np.from_dlpack(one) for one in arguments])

    machine.set_instrument(watch)
    for image in images:
        calls.clear()
        run(image)
        yield dict(values)


def take(output: LayerOutput, arguments: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """A layer's result, (1, channels, height, width), from the arguments of its kernel."""
    result = _real(output, arguments[-1])
    return result if output.added is None else result - _real(output, arguments[output.added])


def _real(output: LayerOutput, buffer: NDArray[Any]) -> NDArray[np.float32]:
    blocks = -(-output.channels // output.lanes)
    vectors = buffer.reshape(-1, output.lanes)
    places = (
        output.offset
        + np.arange(blocks)[:, None, None] * output.plane
        + np.arange(output.height)[:, None] * output.row
        + np.arange(output.width)
    )
    blocked: NDArray[np.float32] = vectors[places]  # (blocks, height, width, lanes), a copy
    planes = blocked.transpose(0, 3, 1, 2).reshape(-1, output.height, output.width)
    return planes[None, : output.channels]
