"""Writing compute kernels in TVM's loop language (TIR): flat float32 buffers, explicit vectors.

The kernels leave nothing to a scheduler: each vector load, multiply-add and store is written out,
and values that shall stay in registers are kept in small local buffers with constant indices,
which LLVM turns into registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.extras import require

ON_STACK = {"disable_lower_builtin": True}
"""Annotation of a buffer: it lies on the stack, where LLVM makes registers of it, and no call to
TVM's runtime allocates it. `_tvm_build` leaves out the pass that would take it away."""

OWN = "detbench.kernel"
"""Attribute of a function that this module wrote."""


class Writer:
    """Writes the statements of one kernel, in order. Indices and values are TIR expressions.

    Attributes:
        lanes: float32 values in a vector.
    """

    def __init__(self, lanes: int, threads: bool = True) -> None:
        self.lanes, self._threads = lanes, threads
        self._tir = require("tvm.script.ir_builder.tirx", extra="tvm")
        self.zero = self._tir.float32(0.0)

    def argument(self, name: str, size: int) -> Any:
        """A flat float32 buffer of ``size`` values that the caller passes."""
        return self._tir.arg(name, self._tir.buffer((size,), "float32"))

    def indices(self, name: str, size: int) -> Any:
        """A flat int32 buffer of ``size`` values that the caller passes."""
        return self._tir.arg(name, self._tir.buffer((size,), "int32"))

    def registers(self, vectors: int) -> Any:
        """A local buffer of ``vectors`` vectors; address it with multiples of ``lanes``."""
        size = vectors * self.lanes
        return self._tir.alloc_buffer((size,), "float32", scope="local", annotations=ON_STACK)

    def scratch(self, size: int) -> Any:
        """A private buffer of ``size`` values in memory, one for each task of a parallel loop."""
        return self._tir.alloc_buffer((size,), "float32", scope="global")

    def load(self, buffer: Any, offset: Any) -> Any:
        """The vector at ``offset``."""
        return buffer[self._ramp(offset)]

    def store(self, buffer: Any, offset: Any, value: Any) -> None:
        """Write a vector to ``offset``."""
        self._tir.buffer_store(buffer, value, [self._ramp(offset)])

    def store_one(self, buffer: Any, offset: Any, value: Any) -> None:
        """Write a single value to ``offset``."""
        self._tir.buffer_store(buffer, value, [offset])

    def splat(self, value: Any) -> Any:
        """A vector of one value."""
        scalar = self._tir.float32(value) if isinstance(value, float) else value
        return self._tir.Broadcast(scalar, self.lanes) if self.lanes > 1 else scalar

    def clip(self, value: Any, low: float | None, high: float | None) -> Any:
        """``value`` between the bounds that are given."""
        if low is not None:
            value = self._tir.max(value, self.splat(low))
        return value if high is None else self._tir.min(value, self.splat(high))

    def every_second(self, left: Any, right: Any, first: int) -> Any:
        """A vector of every second value of two, from the ``first``-th one on."""
        if self.lanes == 1:
            return (left, right)[first]
        return self._tir.Shuffle([left, right], [2 * i + first for i in range(self.lanes)])

    def maximum(self, left: Any, right: Any) -> Any:
        """The larger of two indices, values or vectors."""
        return self._tir.max(left, right)

    def minimum(self, left: Any, right: Any) -> Any:
        """The smaller of two indices, values or vectors."""
        return self._tir.min(left, right)

    def fix(self, index: Any) -> Any:
        """A variable that holds ``index``, so that what is built on it stays small.

        TVM's passes simplify each of some hundred vector addresses on its own.
        """
        return index if isinstance(index, int) else self._tir.Bind(index)

    def choose(self, condition: Any, then: Any, otherwise: Any) -> Any:
        """One of two indices."""
        return self._tir.Select(condition, then, otherwise)

    def divmod(self, value: Any, by: int) -> tuple[Any, Any]:
        """Quotient, rounded down, and remainder of an index."""
        if by == 1:
            return value, 0
        return self._tir.floordiv(value, by), self._tir.floormod(value, by)

    def share(self, total: int, each: int, number: Any) -> Any:
        """How many of ``total`` items the task called ``number`` gets, which takes ``each``."""
        return each if total % each == 0 else self.minimum(each, total - number * each)

    @contextmanager
    def loop(self, stop: Any, start: Any = 0) -> Iterator[Any]:
        """A serial loop; yields its index. A single turn is written without a loop.

        The loop that is written counts from zero: TVM 0.27 miscompiles a loop with a variable
        start around another one whose bounds depend on its index.
        """
        if isinstance(start, int) and isinstance(stop, int) and stop - start == 1:
            yield start
            return
        with self._tir.serial(0, stop - start) as index:
            yield index + start

    @contextmanager
    def parallel(self, tasks: int, worthwhile: bool) -> Iterator[Any]:
        """A loop whose turns are spread over the threads where that is ``worthwhile``."""
        if tasks == 1:
            yield 0
            return
        spread = worthwhile and self._threads
        with (self._tir.parallel if spread else self._tir.serial)(0, tasks) as index:
            yield index

    def when(self, condition: Any, then: Callable[[], None]) -> None:
        """Write ``if condition: then()``."""
        with self._tir.If(condition), self._tir.Then():
            then()

    def when_equal(self, value: Any, wanted: int, then: Callable[[], None]) -> None:
        """Write ``if value == wanted: then()``, or decide it now."""
        if not isinstance(value, int):
            self.when(value == wanted, then)
        elif value == wanted:
            then()

    def either(
        self, condition: Any, then: Callable[[], None], otherwise: Callable[[], None]
    ) -> None:
        """Write ``if condition: then() else: otherwise()``."""
        with self._tir.If(condition):
            with self._tir.Then():
                then()
            with self._tir.Else():
                otherwise()

    def _ramp(self, offset: Any) -> Any:
        return self._tir.Ramp(offset, 1, self.lanes) if self.lanes > 1 else offset


def kernel(name: str, lanes: int, body: Callable[[Writer], None], *, threads: bool = True) -> Any:
    """A ``tirx.PrimFunc`` called ``name`` whose arguments and statements ``body`` writes.

    Without ``threads`` its parallel loops are serial ones.

    It carries what Relax's passes want of a function: a root block, and an operator pattern that
    keeps it out of fusion.
    """
    builder = require("tvm.script.ir_builder", extra="tvm").IRBuilder
    tir = require("tvm.script.ir_builder.tirx", extra="tvm")
    structured = require("tvm.s_tir", extra="tvm")
    opaque = 8  # relax.OpPatternKind.kOpaque
    with builder() as writer, tir.prim_func(s_tir=True):
        tir.func_name(name)
        attributes = {"tirx.noalias": True, "global_symbol": name, "op_pattern": opaque}
        tir.func_attr({**attributes, OWN: True})
        body(Writer(lanes, threads))
    written = writer.get()
    block = structured.SBlock([], [], [], "root", written.body)
    return written.with_body(structured.SBlockRealize([], True, block))
