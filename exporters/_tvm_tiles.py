"""Shapes of the hand-written kernels, and how their loops are cut into register tiles.

Activations are blocked, as in oneDNN's nChw16c: ``(blocks, height, width, lanes)``, where a vector
holds ``lanes`` neighbouring channels of one pixel. The last block's unused lanes hold numbers that
no real channel depends on. Pure Python: the choices can be tested without TVM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

FMA_PER_CYCLE = 2.0
LOADS_PER_CYCLE = 2.0
FMA_LATENCY = 4.0
"""In cycles. The big cores since 2017 agree on these: Intel's, AMD's and Arm's."""

MOST_PIXELS = 14
"""Of a register tile: each is a stream of its own, and more of them measured slower."""

L2_BYTES_PER_CYCLE = 32.0
"""What a core can stream from its second-level cache beside its arithmetic."""

L1_BYTES = 24 * 1024
"""Weights that stay in the first-level cache, three quarters of the smallest one."""

CHUNK_BYTES = 256 * 1024
"""Input of one task: half of the smallest second-level cache that the targets have."""

TASKS = 16
"""Into how many tasks a large layer is cut, so that a few threads finish together."""

PARALLEL_MACS = 250_000
"""Below this a layer takes less time than waking a thread does (about 3 µs)."""


def ceil_div(value: int, by: int) -> int:
    """``value / by``, rounded up."""
    return -(-value // by)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window over an image, in (vertical, horizontal) pairs.

    ``padding`` is (top, left, bottom, right), zeros that are never read.
    """

    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @cached_property
    def out_height(self) -> int:
        """Rows of the result."""
        span = self.dilation[0] * (self.kernel[0] - 1) + 1
        return (self.height + self.padding[0] + self.padding[2] - span) // self.stride[0] + 1

    @cached_property
    def out_width(self) -> int:
        """Columns of the result."""
        span = self.dilation[1] * (self.kernel[1] - 1) + 1
        return (self.width + self.padding[1] + self.padding[3] - span) // self.stride[1] + 1

    @property
    def pointwise(self) -> bool:
        """One tap on each pixel: rows need not be told apart."""
        return self.kernel == (1, 1) == self.stride and not any(self.padding)

    def flattened(self) -> Window:
        """The same pixels as one row, for a pointwise window."""
        return Window(height=1, width=self.height * self.width)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Equal neighbouring tiles of one output row: ``count`` of them, ``step`` pixels apart.

    ``taps[m][k]`` says whether horizontal tap k of the tile's pixel m lies inside the image.
    """

    start: int
    step: int
    count: int
    taps: tuple[tuple[bool, ...], ...]

    @property
    def inside(self) -> bool:
        """Whether no tap falls into the padding."""
        return all(all(pixel) for pixel in self.taps)


def runs(window: Window, tile: int) -> tuple[Run, ...]:
    """Cut an output row into tiles of ``tile`` pixels; the last one may overlap its neighbour."""
    width = window.out_width
    found: list[Run] = []
    for index in range(ceil_div(width, tile)):
        start = min(index * tile, width - tile)
        taps = tuple(
            tuple(
                0
                <= (start + pixel) * window.stride[1] - window.padding[1] + tap * window.dilation[1]
                < window.width
                for tap in range(window.kernel[1])
            )
            for pixel in range(tile)
        )
        last = found[-1] if found else None
        if last is not None and last.taps == taps:
            step = last.step if last.count > 1 else start - last.start
            if start == last.start + step * last.count:
                found[-1] = Run(start=last.start, step=step, count=last.count + 1, taps=taps)
                continue
        found.append(Run(start=start, step=tile, count=1, taps=taps))
    return tuple(found)


def register_tile(
    pixels: int, blocks: int, depth: int, lanes: int, registers: int
) -> tuple[int, int]:
    """(pixels, vectors of output channels) that one register tile of a convolution should hold.

    The tile keeps ``pixels x vectors`` sums; each step of the reduction loads ``vectors`` weights
    and one scalar per pixel. Chosen by estimated cycles.

    Args:
        pixels: in an output row (all of them for a pointwise convolution).
        blocks: vectors of output channels in all.
        depth: input channels times taps, the length of the reduction.
        lanes: float32 values in a vector.
        registers: of the CPU.
    """
    return register_tiles(pixels, blocks, depth, lanes, registers)[0]


def register_tiles(
    pixels: int, blocks: int, depth: int, lanes: int, registers: int
) -> list[tuple[int, int]]:
    """All tiles that fit, for `register_tile`'s arguments, the one of fewest cycles first."""
    found: dict[tuple[int, int], float] = {}
    for vectors in range(1, min(blocks, registers // 2) + 1):
        for tile in range(1, min(pixels, MOST_PIXELS) + 1):
            if tile * vectors + vectors + 1 >= registers:
                break
            each = _tile_cycles(tile, vectors, depth, lanes)
            rest = _tile_cycles(tile, blocks % vectors, depth, lanes) if blocks % vectors else 0.0
            found[tile, vectors] = ceil_div(pixels, tile) * (blocks // vectors * each + rest)
    return sorted(found, key=found.__getitem__) or [(1, 1)]


def _tile_cycles(pixels: int, vectors: int, depth: int, lanes: int) -> float:
    """The slowest of arithmetic, loads, latency and streaming; then starting and storing it."""
    sums = pixels * vectors
    streamed = 4 * lanes * vectors if 4 * lanes * vectors * depth > L1_BYTES else 0
    step = max(
        sums / FMA_PER_CYCLE,
        (pixels + vectors) / LOADS_PER_CYCLE,
        FMA_LATENCY,
        streamed / L2_BYTES_PER_CYCLE,
    )
    return depth * (step + 0.5) + 2 * sums + 10


def row_tile(width: int, registers: int, taps: int) -> int:
    """Pixels of an output row that a depthwise tile should hold: equal tiles of at most seven."""
    longest = max(1, min(7, registers - taps - 3))
    return ceil_div(width, ceil_div(width, longest))
