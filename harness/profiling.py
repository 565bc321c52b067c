"""Profiles as records: the time of each operator, and what kind of work it is.

A profile is made in a run of its own, because it slows down what it looks at: its sum says where
the time goes, not how much there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.errors import Unsupported
from harness.interfaces import Operator
from harness.records import Measurement

WORK: Mapping[str, str] = {
    "convolution": r"conv|depthwise|stem|pointwise|matmul|gemm|fully.?connected|^linear|dense|mm\b",
    "quantize or dequantize": r"quant",
    "layout": r"transpos|permut|reorder|layout|reshape|flatten|nhwc|nchw|to_rows|copy|contiguous",
    "join or cut": r"concat|\bcat\b|slice|split|gather|pad|stack",
    "pooling": r"pool|mean",
    "element by element": r"relu|clip|clamp|hardtanh|add|mul|sub|div|sigmoid|swish|logistic|norm",
}
"""What a kind of operator does, by the words in its name; the first that fits. Quantized and fused
convolutions are convolutions: their name says so before it says anything else."""
OTHER = "other"


def work_of(kind: str) -> str:
    """The work that an operator of ``kind`` does, one of `WORK` or ``other``."""
    plain = kind.lower().replace("aten::", "").replace("quantized_decomposed", "quant")
    for work, words in WORK.items():
        if re.search(words, plain):
            return work
    return OTHER


def measurements(operators: Sequence[Operator]) -> list[Measurement]:
    """``profile.0``, ``profile.1``, … in the order of running, with all samples.

    Raises:
        Unsupported: there is no operator in the profile.
    """
    if not operators:
        raise Unsupported("the runtime's profile holds no operator")
    return [
        Measurement(
            metric=f"profile.{number}",
            value=None,
            unit="ns",
            samples=tuple(map(float, one.ns)),
            conditions={"name": one.name, "kind": one.kind, "work": work_of(one.kind)},
        )
        for number, one in enumerate(operators)
    ]
