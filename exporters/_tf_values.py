"""Tensors of the graph under translation, and the table of what translates which operator.

A value remembers in which order its axes are stored. Permutations change only that order and
cost nothing; a transpose is emitted only where an operator cannot work in the stored order. The
SSD heads, ``permute(0, 2, 3, 1)`` then reshape, therefore come out without any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import ExportFailed

NHWC = (0, 2, 3, 1)
Axis = tuple[int, int]
"""Zeros before and after along one axis."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor of the graph.

    Attributes:
        tensor: the TensorFlow tensor as stored.
        order: stored axis ``k`` is torch's axis ``order[k]``; `NHWC` for images.
        padding: zeros still to be put around the image, (rows, columns), which a convolution can
            take over for nothing.
    """

    tensor: Any
    order: tuple[int, ...]
    padding: tuple[Axis, Axis] = ((0, 0), (0, 0))

    def axis(self, dim: int) -> int:
        """Stored axis of torch's ``dim``, which may be negative."""
        return self.order.index(dim % len(self.order))


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a handler may need besides the operator's arguments: ``shape`` is torch's result."""

    tf: Any
    where: str
    shape: tuple[int, ...]

    def refuse(self, reason: str) -> ExportFailed:
        """The error to raise where this call cannot be expressed."""
        return ExportFailed(f"{self.where} cannot be exported to TensorFlow Lite: {reason}")


Handler = Callable[..., Value]
HANDLERS: dict[str, Handler] = {}
"""By the aten operator's name without its overload; in-place ones share the functional name."""


def lowers(*names: str) -> Callable[[Handler], Handler]:
    """Enter a handler into the table under each of ``names``."""

    def enter(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


def stored(tf: Any, value: Value, order: Sequence[int]) -> Value:
    """``value`` with its axes stored in ``order``; transposes only where they are not yet."""
    if value.order == tuple(order):
        return value
    permutation = [value.order.index(axis) for axis in order]
    return replace(value, tensor=tf.transpose(value.tensor, permutation), order=tuple(order))


def plain(tf: Any, value: Value) -> Any:
    """The tensor with torch's axis order."""
    return stored(tf, value, range(len(value.order))).tensor


def padded(tf: Any, value: Value) -> Value:
    """``value`` with its pending padding carried out."""
    if not any(map(any, value.padding)):
        return value
    pads = [[0, 0], *map(list, value.padding), [0, 0]]
    return replace(value, tensor=tf.pad(value.tensor, pads), padding=((0, 0), (0, 0)))


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])
