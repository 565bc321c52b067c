"""What a kernel still does to its sums before it stores them: residuals, clips, scales.

Fusing them saves a pass over memory each. They are applied in the order in which the network has
them, so that ``conv → ReLU → batch-norm → + input`` is one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exporters._tvm_tir import Writer


@dataclass(frozen=True)
class Add:
    """Add a tensor of the output's shape and layout."""


@dataclass(frozen=True)
class Clip:
    """Bound the value; None where it has no bound. ReLU is ``Clip(0.0, None)``."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Affine:
    """Multiply by a scale and add a shift, one of each per channel."""


After = Add | Clip | Affine


class Epilogue:
    """Declares the arguments of ``after`` and writes it.

    Arguments, in order: for each `Add` a tensor of ``size`` values, laid out as the output; for
    each `Affine` the scales and the shifts, (``channels``,) padded to whole vectors. A vector holds
    neighbouring channels, or with ``planes`` neighbouring pixels of one channel.
    """

    def __init__(
        self, w: Writer, after: Sequence[After], size: int, channels: int, *, planes: bool = False
    ) -> None:
        self._w, self._planes = w, planes
        self._steps: list[tuple[After, tuple[Any, ...]]] = []
        for number, step in enumerate(after):
            buffers: tuple[Any, ...] = ()
            if isinstance(step, Add):
                buffers = (w.argument(f"residual{number}", size),)
            elif isinstance(step, Affine):
                buffers = tuple(
                    w.argument(f"{label}{number}", channels) for label in ("scale", "shift")
                )
            self._steps.append((step, buffers))

    def apply(self, value: Any, at: Any, channel: Any) -> Any:
        """``value`` as it is to be stored at offset ``at``; ``channel`` is its first one."""
        w = self._w
        for step, buffers in self._steps:
            if isinstance(step, Clip):
                value = w.clip(value, step.low, step.high)
            elif isinstance(step, Add):
                value = value + w.load(buffers[0], at)
            else:
                scale, shift = (self._each(buffer, channel) for buffer in buffers)
                value = value * scale + shift
        return value

    def _each(self, buffer: Any, channel: Any) -> Any:
        return self._w.splat(buffer[channel]) if self._planes else self._w.load(buffer, channel)
