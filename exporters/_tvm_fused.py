"""Kernel of a convolution and the depthwise convolution (or pool) that alone reads it.

Between the two lies the largest tensor of an inverted residual. It never reaches memory: a task
takes some output channels and a band of rows, and walks down the band in strips. It computes the
rows that the strip needs into a scratch buffer that stays in the cache, runs the window over
them, and hands the rows that the next strip shares with it on to that one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporters import _tvm_tir
from exporters._tvm_conv_tile import Conv, ConvTile, Plan
from exporters._tvm_depthwise import Depthwise, DepthwiseTile
from exporters._tvm_tiles import (
    PARALLEL_MACS,
    TASKS,
    ceil_div,
    register_tile,
    register_tiles,
    runs,
)

SCRATCH_BYTES = 256 * 1024
"""Of a task: some rows of a wide map or the whole of a narrow one, in the second-level cache."""

REPEATED = 0.08
"""Part of the first convolution that may be computed twice, where bands overlap."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """``window`` reads nothing but the result of ``conv``, which nothing else reads."""

    conv: Conv
    window: Depthwise

    @property
    def macs(self) -> int:
        """Multiply-adds of both."""
        return self.conv.macs + self.window.macs


@dataclass(frozen=True, kw_only=True)
class Strips:
    """How a `Fused` is cut up.

    Attributes:
        cut: of the convolution; of it, only the register tile and the groups count.
        rows: output rows of a strip.
        slots: input rows that the scratch buffer holds.
        kept: of them, those that the next strip needs again.
        band: strips in a band.
        bands: in the image.
    """

    cut: Plan
    rows: int
    slots: int
    kept: int
    band: int
    bands: int


class Cut(NamedTuple):
    """What can be chosen of `Strips`: the register tile, and the room for a strip."""

    tile: tuple[int, int]
    scratch_bytes: int


def plan(fused: Fused, lanes: int, registers: int, chosen: Cut | None = None) -> Strips:
    """Choose the register tile and the height of strips, where none were ``chosen``, and bands."""
    scratch = chosen.scratch_bytes if chosen else SCRATCH_BYTES
    window, source = fused.window.window, fused.conv.window
    stride = window.stride[0]
    span = window.dilation[0] * (window.kernel[0] - 1) + 1
    kept = max(0, span - stride)
    blocks = ceil_div(fused.conv.outputs, lanes)
    depth = fused.conv.inputs * source.kernel[0] * source.kernel[1]

    def choose(pixels: int) -> tuple[int, int, int]:
        tile, vectors = register_tile(pixels, blocks, depth, lanes, registers)
        if chosen:
            tile, vectors = min(chosen.tile[0], pixels), chosen.tile[1]
        room = scratch // (4 * lanes * vectors * window.width)
        return tile, vectors, max((room - span) // stride + 1, ceil_div(kept, stride), 1)

    needed = min(window.height, (window.out_height - 1) * stride + span - window.padding[0])
    tile, vectors, rows = choose(window.width * (needed if source.pointwise else 1))
    if rows < window.out_height:
        # A tile of a flattened row may not reach back over the rows that a strip holds.
        tile, vectors, rows = choose(window.width)
    rows = min(rows, window.out_height)
    strips = ceil_div(window.out_height, rows)
    most = int(REPEATED * window.out_height * stride / kept) if kept else strips
    wanted = ceil_div(TASKS, ceil_div(blocks, vectors))
    band = ceil_div(strips, max(1, min(wanted, strips, most)))
    return Strips(
        cut=Plan(
            lanes=lanes,
            tile=tile,
            vectors=vectors,
            groups=blocks // vectors,
            rest=blocks % vectors,
            unit_count=1,
            chunk=1,
            group_chunk=1,
        ),
        rows=rows,
        slots=(rows - 1) * stride + span,
        kept=kept,
        band=band,
        bands=ceil_div(strips, band),
    )


def cuts(fused: Fused, lanes: int, registers: int, most: int) -> list[Cut]:
    """The most promising register tiles, and for the best of them other heights of strips."""
    source = fused.conv.window
    blocks = ceil_div(fused.conv.outputs, lanes)
    depth = fused.conv.inputs * source.kernel[0] * source.kernel[1]
    found = register_tiles(fused.window.window.width, blocks, depth, lanes, registers)[:most]
    sizes = (SCRATCH_BYTES, SCRATCH_BYTES // 2, 2 * SCRATCH_BYTES)
    return [
        *(Cut(tile, SCRATCH_BYTES) for tile in found),
        *(Cut(tile, size) for tile in found[:2] for size in sizes[1:]),
    ]


def kernel(name: str, fused: Fused, strips: Strips, registers: int, *, threads: bool = True) -> Any:
    """The PrimFunc: the convolution's arguments, the window's, output; all flat."""

    def body(writer: _tvm_tir.Writer) -> None:
        _FusedWriter(writer, fused, strips, registers).write()

    return _tvm_tir.kernel(name, strips.cut.lanes, body, threads=threads)


class _FusedWriter:
    def __init__(
        self, writer: _tvm_tir.Writer, fused: Fused, strips: Strips, registers: int
    ) -> None:
        self.w, self.fused, self.strips = writer, fused, strips
        conv = fused.conv
        self.flat = conv.window.pointwise
        if self.flat:
            conv = dataclasses.replace(conv, window=conv.window.flattened())
        self.first = ConvTile(writer, conv, strips.cut)
        self.second = DepthwiseTile(writer, fused.window, registers)
        self.out = writer.argument("out", self.second.out_size)
        self.window = fused.window.window

    def write(self) -> None:
        """The parallel loop over tasks: groups of output channels x bands of rows."""
        cut, bands = self.strips.cut, self.strips.bands
        whole = cut.groups * bands
        rest = bands if cut.rest else 0
        with self.w.parallel(whole + rest, self.fused.macs >= PARALLEL_MACS) as task:

            def full() -> None:
                group, band = self.w.divmod(task, bands)
                self._band(group, cut.vectors, band)

            if rest:
                self.w.either(
                    task < whole, full, lambda: self._band(cut.groups, cut.rest, task - whole)
                )
            else:
                full()

    def _band(self, group: Any, vectors: int, band: Any) -> None:
        w, strips, window = self.w, self.strips, self.window
        stride, top = window.stride[0], window.padding[0]
        scratch = w.scratch(vectors * strips.slots * window.width * w.lanes)
        count = ceil_div(window.out_height, strips.rows)
        with w.loop(w.share(count, strips.band, band)) as turn:
            strip = w.fix(band * strips.band + turn)
            y = w.fix(strip * strips.rows)
            rows = w.fix(w.share(window.out_height, strips.rows, strip))
            slot = w.fix(y * stride - top)  # the input row in the first slot, maybe above the image
            span = strips.slots - (strips.rows - 1) * stride
            stop = w.fix(w.minimum(window.height, slot + (rows - 1) * stride + span))
            start = w.maximum(0, slot)
            if strips.band > 1 and strips.kept:
                w.when(turn > 0, lambda: self._keep(scratch, vectors))
                start = w.choose(turn > 0, slot + strips.kept, start)
            self._fill(group, vectors, scratch, slot, w.fix(start), stop)
            with w.loop(vectors) as vector:

                def source(row: Any, vector: Any = vector) -> Any:
                    return (vector * strips.slots + row - slot) * window.width * w.lanes

                with w.loop(rows) as row:
                    block = w.fix(group * strips.cut.vectors + vector)
                    self.second.row(block, w.fix(y + row), scratch, source, self.out)

    def _keep(self, scratch: Any, vectors: int) -> None:
        """Move the rows that the last strip shares with this one to the first slots."""
        w, strips = self.w, self.strips
        width = self.window.width * w.lanes
        gone = strips.rows * self.window.stride[0]
        with w.loop(vectors) as vector, w.loop(strips.kept * self.window.width) as pixel:
            to = vector * strips.slots * width + pixel * w.lanes
            w.store(scratch, to, w.load(scratch, to + gone * width))

    def _fill(
        self, group: Any, vectors: int, scratch: Any, slot: Any, start: Any, stop: Any
    ) -> None:
        """Compute rows ``start`` to ``stop`` of the convolution; row ``slot`` is in slot 0."""
        w, width, slots = self.w, self.window.width, self.strips.slots

        def place(vector: int, y: Any, x: Any) -> Any:
            row = y - slot if not self.flat else -slot
            return ((vector * slots + row) * width + x) * w.lanes

        if self.flat:
            tile = self.strips.cut.tile
            pixels = w.fix(w.maximum(stop - start, 0) * width)
            with w.loop(w.divmod(pixels + tile - 1, tile)[0]) as index:
                x = w.fix(start * width + w.minimum(index * tile, pixels - tile))
                self.first.write(group, vectors, 0, x, ((True,),) * tile, scratch, place)
            return
        with w.loop(w.maximum(stop - start, 0)) as index:
            for run in runs(self.first.conv.window, self.strips.cut.tile):
                with w.loop(run.count) as turn:
                    x = run.start + turn * run.step
                    self.first.write(group, vectors, start + index, x, run.taps, scratch, place)
