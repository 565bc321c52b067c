"""What a compiled artifact says of single layers: which kernels were chosen, where results lie."""

from __future__ import annotations

from harness.record_base import Record


class LayerChoice(Record, frozen=True, kw_only=True):
    """Which of several kernels an exporter chose for one layer, and why.

    ``sparsity`` is the part of its weights that is zero. Times are at one thread on the machine
    that exported, or a board; None where they were not measured, which ``reason`` explains.
    ``macs`` are the multiply-adds of weights that are not zero, ``moved_bytes`` what the chosen
    kernel has to read and write at least: weights, their places, each activation once. 0 is not
    known, as in older files.
    """

    layer: str
    sparsity: float
    dense_us: float | None
    sparse_us: float | None
    chosen: str
    reason: str
    chosen_us: float | None = None
    untuned_us: float | None = None
    macs: int = 0
    moved_bytes: int = 0


class LayerOutput(Record, frozen=True, kw_only=True):
    """Where a layer's result lies after the ``call``-th call of ``kernel``, counted from 0.

    In the kernel's last argument, a flat float32 buffer of vectors with ``lanes`` channels each:
    channel c at pixel (y, x) is number ``c % lanes`` of vector
    ``offset + c // lanes * plane + y * row + x``. ``added`` is the argument, of the same layout,
    that the kernel added to the layer's result; None where it added none.
    """

    layer: str
    kernel: str
    call: int
    channels: int
    height: int
    width: int
    row: int
    plane: int
    lanes: int = 1
    offset: int = 0
    added: int | None = None
