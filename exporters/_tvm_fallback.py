"""A convolution that no kernel of ours knows, as Relax has it, for TVM to lower itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters._tvm_after import Add, Affine
from exporters._tvm_graph import Step
from harness.extras import require


def convolution(step: Step, emit: Callable[[Any], Any], plain: Callable[[Any], Any]) -> Any:
    """``step`` with all that was folded into it; ``plain`` gives a variable's plain value."""
    relax = require("tvm.relax", extra="tvm")
    op = relax.op

    def constant(values: NDArray[Any], *shape: int) -> Any:
        return relax.const(values.astype(np.float32).reshape(shape))

    value = op.nn.conv2d(
        plain(step.source),
        constant(step.weight, *step.weight.shape),
        strides=step.window.stride,
        padding=step.window.padding,
        dilation=step.window.dilation,
        groups=step.groups,
    )
    value = op.add(emit(value), constant(step.bias, 1, -1, 1, 1))
    for after, needs in step.after:
        if isinstance(after, Add):
            value = op.add(emit(value), plain(needs))
        elif isinstance(after, Affine):
            scale, shift = (constant(values, 1, -1, 1, 1) for values in needs)
            value = op.multiply(emit(value), scale)
            value = op.add(emit(value), shift)
        else:
            low, high = after.low, after.high
            low, high = (-math.inf if low is None else low, math.inf if high is None else high)
            value = op.clip(emit(value), low, high)
    return emit(value)
