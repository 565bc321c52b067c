"""Kernel of dense convolutions: pointwise ones, the first one of a network, and all others.

The work is cut into tasks of some pixels x some output channels, and these into the register
tiles of `_tvm_conv_tile`.
"""

from __future__ import annotations

from typing import Any

from exporters import _tvm_tir
from exporters._tvm_conv_tile import Conv, ConvTile, Plan
from exporters._tvm_tiles import (
    CHUNK_BYTES,
    PARALLEL_MACS,
    TASKS,
    ceil_div,
    register_tile,
    register_tiles,
    runs,
)

Tile = tuple[int, int]
"""Pixels and vectors of output channels of a register tile."""


def plan(conv: Conv, lanes: int, registers: int, chosen: Tile | None = None) -> Plan:
    """Choose the register tile, where none was ``chosen``, and the tasks of ``conv``.

    A task holds a part of the pixels, whose input stays in the cache while all weights pass by;
    where the weights are the larger part, it holds some of them and all pixels pass by.
    """
    window = conv.window
    blocks = ceil_div(conv.outputs, lanes)
    depth = conv.inputs * window.kernel[0] * window.kernel[1]
    tile, vectors = chosen or register_tile(window.out_width, blocks, depth, lanes, registers)
    groups = blocks // vectors
    unit_count = ceil_div(window.out_width, tile) if conv.flat else window.out_height
    pixels = tile if conv.flat else window.width * window.stride[0]
    chunk = max(1, min(unit_count, CHUNK_BYTES // (4 * conv.inputs * pixels)))
    if depth * conv.outputs < conv.inputs * window.height * window.width:
        chunk = min(chunk, ceil_div(unit_count, TASKS))
    group_chunk = ceil_div(groups, min(groups, ceil_div(TASKS, ceil_div(unit_count, chunk))))
    return Plan(
        lanes=lanes,
        tile=tile,
        vectors=vectors,
        groups=groups,
        rest=blocks % vectors,
        unit_count=unit_count,
        chunk=chunk,
        group_chunk=group_chunk,
    )


def tiles(conv: Conv, lanes: int, registers: int, most: int) -> list[Tile]:
    """The most promising register tiles, the best first."""
    blocks = ceil_div(conv.outputs, lanes)
    depth = conv.inputs * conv.window.kernel[0] * conv.window.kernel[1]
    return register_tiles(conv.window.out_width, blocks, depth, lanes, registers)[:most]


def kernel(name: str, conv: Conv, cut: Plan, *, threads: bool = True) -> Any:
    """The PrimFunc: input, weights, bias, what `Epilogue` declares, output, all flat."""
    return _tvm_tir.kernel(
        name, cut.lanes, lambda writer: _ConvWriter(writer, conv, cut).write(), threads=threads
    )


class _ConvWriter:
    """Writes one convolution: tasks, then groups of output channels, then tiles of pixels."""

    def __init__(self, writer: _tvm_tir.Writer, conv: Conv, cut: Plan) -> None:
        self.w, self.conv, self.cut = writer, conv, cut
        self.tile = ConvTile(writer, conv, cut)
        self.out = writer.argument("out", self.tile.out_size)

    def write(self) -> None:
        """The parallel loop over tasks: chunks of pixels x parts of the output channels."""
        cut = self.cut
        chunks = ceil_div(cut.unit_count, cut.chunk)
        whole = ceil_div(cut.groups, cut.group_chunk) * chunks
        rest = chunks if cut.rest else 0
        with self.w.parallel(whole + rest, self.conv.macs >= PARALLEL_MACS) as task:
            if rest:
                self.w.either(
                    task < whole,
                    lambda: self._groups(*self.w.divmod(task, chunks)),
                    lambda: self._pixels(cut.groups, cut.rest, task - whole),
                )
            else:
                self._groups(*self.w.divmod(task, chunks))

    def _groups(self, part: Any, chunk: Any) -> None:
        each = self.cut.group_chunk
        with self.w.loop(self.w.share(self.cut.groups, each, part)) as index:
            self._pixels(part * each + index, self.cut.vectors, chunk)

    def _pixels(self, group: Any, vectors: int, chunk: Any) -> None:
        cut, width = self.cut, self.conv.window.out_width

        def place(vector: int, y: Any, x: Any) -> Any:
            return self.tile.offset(group * cut.vectors + vector, y, x)

        with self.w.loop(self.w.share(cut.unit_count, cut.chunk, chunk)) as index:
            unit = self.w.fix(chunk * cut.chunk + index)
            if self.conv.flat:
                start = unit * cut.tile
                start = self.w.minimum(start, width - cut.tile) if width % cut.tile else start
                start = self.w.fix(start)
                inside = ((True,),) * cut.tile
                self.tile.write(group, vectors, 0, start, inside, self.out, place)
                return
            for run in runs(self.conv.window, cut.tile):
                with self.w.loop(run.count) as turn:
                    x = self.w.fix(run.start + turn * run.step)
                    self.tile.write(group, vectors, unit, x, run.taps, self.out, place)
