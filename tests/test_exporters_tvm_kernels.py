"""TVM kernels against torch on awkward shapes, for the vectors of three CPUs; their tiles."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporters import (
    _tvm_build,
    _tvm_conv,
    _tvm_conv_tile,
    _tvm_depthwise,
    _tvm_fused,
    _tvm_layout,
    _tvm_target,
)
from exporters._tvm_after import Add, Affine, After, Clip
from exporters._tvm_tiles import Window, ceil_div, register_tile, runs

torch = pytest.importorskip("torch", reason="the reference")
tvm = pytest.importorskip("tvm", reason="the compiler under test")

Array = NDArray[np.float32]

X86 = platform.machine() == "x86_64"
CPUS = [
    "native",
    *((pytest.param("x86-64-v3", marks=pytest.mark.slow),) if X86 else ()),
    *((pytest.param("x86-64-v2", marks=pytest.mark.slow),) if X86 else ()),
]
"""Vectors of this machine, of eight lanes and of four."""

RELU6 = Clip(0.0, 6.0)


def difference(found: Array, expected: Any) -> float:
    """Largest difference, relative to the largest magnitude."""
    wanted = np.asarray(expected)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def blocked(plain: Array, lanes: int) -> Array:
    """(channels, height, width) → the kernels' layout; unused lanes hold a value to be ignored."""
    channels, height, width = plain.shape
    padded = np.full((ceil_div(channels, lanes) * lanes, height, width), 1e3, np.float32)
    padded[:channels] = plain
    split = padded.reshape(-1, lanes, height, width)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1)).ravel()


def plain(flat: Array, shape: tuple[int, ...], lanes: int) -> Array:
    """Back to (channels, height, width)."""
    channels, height, width = shape
    split = flat.reshape(-1, height, width, lanes).transpose(0, 3, 1, 2)
    return split.reshape(-1, height, width)[:channels]


def padded(values: Array, lanes: int) -> Array:
    return np.pad(values, (0, -len(values) % lanes))


class Bench:
    """Collects kernels with their arguments, compiles them at once and compares their results."""

    def __init__(self, cpu: str) -> None:
        self.target = _tvm_target.resolve(cpu)
        self.lanes, self.registers = self.target.lanes, self.target.registers
        self._module: dict[str, Any] = {}
        self._calls: list[tuple[str, list[Array], Array, bool]] = []
        self.rng = np.random.default_rng(len(cpu))

    def normal(self, *shape: int) -> Array:
        return self.rng.normal(0, 1, shape).astype(np.float32)

    def name(self) -> str:
        return f"kernel_{len(self._calls)}"

    def add(self, function: Any, arguments: list[Array], expected: Any, flat: bool = False) -> None:
        name = self.name()
        self._module[name] = function
        self._calls.append((name, arguments, np.asarray(expected, np.float32), flat))

    def after(self, steps: tuple[After, ...], sums: Any) -> tuple[list[Array], Any]:
        """Arguments of an epilogue on ``sums``, (channels, height, width), and its result."""
        arguments: list[Array] = []
        for step in steps:
            if isinstance(step, Clip):
                low = -np.inf if step.low is None else step.low
                sums = np.clip(sums, low, np.inf if step.high is None else step.high)
            elif isinstance(step, Add):
                other = self.normal(*sums.shape)
                arguments.append(blocked(other, self.lanes))
                sums = sums + other
            else:
                scale, shift = self.normal(len(sums)), self.normal(len(sums))
                arguments += [padded(scale, self.lanes), padded(shift, self.lanes)]
                sums = sums * scale[:, None, None] + shift[:, None, None]
        return arguments, sums

    def check(self) -> None:
        module = tvm.IRModule(
            {
                name: function.with_attr("global_symbol", name)
                for name, function in self._module.items()
            }
        )
        compiled = _tvm_build.compile_module(module, self.target)
        for name, arguments, expected, flat in self._calls:
            shape = expected.shape
            blocks = ceil_div(shape[0], self.lanes) * self.lanes
            size = expected.size if flat else blocks * shape[1] * shape[2]
            guard = 64  # values that no kernel may touch
            room = tvm.runtime.tensor(np.full(size + guard, 7e7, np.float32))
            view = np.from_dlpack(room)
            out = tvm.runtime.from_dlpack(view[:size])
            compiled[name](*map(tvm.runtime.tensor, arguments), out)
            assert (view[size:] == np.float32(7e7)).all(), f"{name} wrote past its output"
            found = view[:size].reshape(shape) if flat else plain(view[:size], shape, self.lanes)
            assert difference(found, expected) < 1e-5, name


def conv_reference(image: Array, weight: Array, bias: Array, window: Window, groups: int) -> Any:
    top, left, bottom, right = window.padding
    given = torch.nn.functional.pad(torch.from_numpy(image)[None], (left, right, top, bottom))
    return torch.nn.functional.conv2d(
        given,
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        window.stride,
        0,
        window.dilation,
        groups,
    )[0].numpy()


def square(size: int, kernel: int = 1, stride: int = 1, padding: int = 0) -> Window:
    return Window(
        height=size,
        width=size,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(padding,) * 4,
    )


ODD = Window(
    height=9, width=14, kernel=(3, 5), stride=(2, 1), padding=(1, 0, 2, 3), dilation=(2, 1)
)
"""Everything uneven: extents, taps, strides, paddings, dilations."""

CONVS: tuple[tuple[Window, int, int, bool, tuple[After, ...]], ...] = (
    (square(19), 24, 40, False, (RELU6,)),
    (square(1), 64, 66, False, ()),
    (square(2), 5, 3, False, (Add(), Clip(0.0, None))),
    (square(7), 33, 179, False, (Affine(), Add(), Add())),
    (square(11), 16, 96, False, (Clip(0.0, None), Affine())),
    (square(38), 7, 1, False, ()),
    (square(15, 3, 2, 1), 3, 20, True, (RELU6,)),
    (square(16, 3, 2, 1), 3, 11, True, ()),
    (square(13, 3, 1, 1), 20, 36, False, (Add(), RELU6)),
    (square(12, 1, 2), 18, 17, False, ()),
    (square(5, 7, 3, 3), 4, 24, False, ()),
    (ODD, 17, 21, False, (Clip(None, 1.0),)),
    (ODD, 3, 9, True, ()),
)
"""(window, inputs, outputs, planar input, what follows)."""


@pytest.mark.parametrize("cpu", CPUS)
def test_convolutions_equal_torch(cpu: str) -> None:
    bench = Bench(cpu)
    for window, inputs, outputs, planar, steps in CONVS:
        image = bench.normal(inputs, window.height, window.width)
        weight, bias = bench.normal(outputs, inputs, *window.kernel), bench.normal(outputs)
        conv = _tvm_conv_tile.Conv(
            window=window.flattened() if window.pointwise else window,
            inputs=inputs,
            outputs=outputs,
            planar=planar,
            after=steps,
        )
        cut = _tvm_conv.plan(conv, bench.lanes, bench.registers)
        sums = conv_reference(image, weight, bias, window, 1)
        more, expected = bench.after(steps, sums)
        given = image.ravel() if planar else blocked(image, bench.lanes)
        arguments = [given, *_tvm_conv_tile.pack(conv, cut, weight, bias), *more]
        bench.add(_tvm_conv.kernel(bench.name(), conv, cut), arguments, expected)
    bench.check()


WINDOWS: tuple[tuple[Window, int, tuple[After, ...]], ...] = (
    (square(19, 3, 1, 1), 24, (RELU6,)),
    (square(1, 3, 1, 1), 5, ()),
    (square(2, 3, 2, 1), 40, (Add(),)),
    (square(23, 3, 2, 1), 17, (Clip(0.0, None), Affine(), Add())),
    (square(16, 1, 2, 0), 33, ()),
    (square(9, 5, 1, 2), 16, ()),
    (ODD, 20, ()),
)
"""(window, channels, what follows)."""


def depthwise_case(
    bench: Bench, window: Window, channels: int, pool: bool, steps: tuple[After, ...], image: Array
) -> tuple[_tvm_depthwise.Depthwise, list[Array], Any]:
    """The layer, its arguments after the image, and what it makes of ``image``."""
    layer = _tvm_depthwise.Depthwise(window=window, channels=channels, pool=pool, after=steps)
    if pool:
        top, left, bottom, right = window.padding
        given = torch.nn.functional.pad(
            torch.from_numpy(image)[None], (left, right, top, bottom), value=-torch.inf
        )
        sums = torch.nn.functional.max_pool2d(
            given, window.kernel, window.stride, 0, window.dilation
        )[0].numpy()
        own: tuple[Array, ...] = ()
    else:
        weight, bias = bench.normal(channels, 1, *window.kernel), bench.normal(channels)
        sums = conv_reference(image, weight, bias, window, channels)
        own = _tvm_depthwise.pack(layer, bench.lanes, weight, bias)
    more, expected = bench.after(steps, sums)
    return layer, [*own, *more], expected


@pytest.mark.parametrize("cpu", CPUS)
def test_depthwise_convolutions_and_pools_equal_torch(cpu: str) -> None:
    bench = Bench(cpu)
    for window, channels, steps in WINDOWS:
        for pool in (False, True):
            image = bench.normal(channels, window.height, window.width)
            layer, arguments, expected = depthwise_case(bench, window, channels, pool, steps, image)
            function = _tvm_depthwise.kernel(bench.name(), layer, bench.lanes, bench.registers)
            bench.add(function, [blocked(image, bench.lanes), *arguments], expected)
    bench.check()


PAIRS: tuple[tuple[Window, int, int, bool, Window, bool], ...] = (
    (square(30), 12, 40, False, square(30, 3, 1, 1), False),
    (square(31), 16, 33, False, square(31, 3, 2, 1), False),
    (square(33, 3, 2, 1), 3, 24, True, square(17, 3, 1, 1), False),
    (square(24, 3, 2, 1), 3, 11, True, square(12, 2, 2, 0), True),
    (square(2), 20, 18, False, square(2, 1, 2, 0), False),
    (square(1), 20, 18, False, square(1, 3, 1, 1), False),
    (square(40), 4, 100, False, square(40, 5, 1, 2), False),
)
"""(first window, inputs, outputs, planar, second window, whether it is a pool)."""


@pytest.mark.slow
@pytest.mark.parametrize("scratch", [_tvm_fused.SCRATCH_BYTES, 1])
@pytest.mark.parametrize("cpu", CPUS)
def test_fused_pairs_equal_torch(cpu: str, scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The smallest scratch buffer makes the thinnest strips, with rows handed on between them.
    monkeypatch.setattr(_tvm_fused, "SCRATCH_BYTES", scratch)
    bench = Bench(cpu)
    for first, inputs, outputs, planar, second, pool in PAIRS:
        image = bench.normal(inputs, first.height, first.width)
        weight, bias = bench.normal(outputs, inputs, *first.kernel), bench.normal(outputs)
        conv = _tvm_conv_tile.Conv(
            window=first, inputs=inputs, outputs=outputs, planar=planar, after=(Add(), RELU6)
        )
        more, middle = bench.after(conv.after, conv_reference(image, weight, bias, first, 1))
        layer, rest, expected = depthwise_case(
            bench, second, outputs, pool, (Affine(),), np.asarray(middle, np.float32)
        )
        fused = _tvm_fused.Fused(conv=conv, window=layer)
        strips = _tvm_fused.plan(fused, bench.lanes, bench.registers)
        given = image.ravel() if planar else blocked(image, bench.lanes)
        packed = _tvm_conv_tile.pack(conv, strips.cut, weight, bias)
        function = _tvm_fused.kernel(bench.name(), fused, strips, bench.registers)
        bench.add(function, [given, *packed, *more, *rest], expected)
    bench.check()


@pytest.mark.parametrize("cpu", CPUS)
def test_layouts_convert_there_and_back(cpu: str) -> None:
    bench = Bench(cpu)
    for channels, size in ((3, 5), (16, 4), (37, 3), (1, 1)):
        image, pixels = bench.normal(channels, size, size), size * size
        made = (channels, pixels, bench.lanes)
        bench.add(_tvm_layout.to_blocked(bench.name(), *made), [image.ravel()], image)
        given = [blocked(image, bench.lanes)]
        bench.add(_tvm_layout.to_planar(bench.name(), *made), given, image, flat=True)
        rows = image.transpose(1, 2, 0)
        bench.add(_tvm_layout.to_rows(bench.name(), *made), given, rows, flat=True)
        more, expected = bench.after((Add(), RELU6), image)
        values = _tvm_layout.values(bench.name(), *made, (Add(), RELU6))
        bench.add(values, [*given, *more], expected)
    bench.check()


@given(
    width=st.integers(1, 40),
    taps=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    tile=st.integers(1, 14),
)
def test_runs_cover_each_pixel_and_know_its_taps(
    width: int, taps: int, stride: int, padding: int, dilation: int, tile: int
) -> None:
    window = Window(
        height=1,
        width=width,
        kernel=(1, taps),
        stride=(1, stride),
        padding=(0, padding, 0, padding),
        dilation=(1, dilation),
    )
    if window.out_width < 1:
        return
    tile = min(tile, window.out_width)
    seen = set()
    for run in runs(window, tile):
        for turn in range(run.count):
            for pixel, inside in enumerate(run.taps):
                x = run.start + turn * run.step + pixel
                seen.add(x)
                columns = [x * stride - padding + tap * dilation for tap in range(taps)]
                assert inside == tuple(0 <= column < width for column in columns)
    assert seen == set(range(window.out_width))


@given(
    pixels=st.integers(1, 500),
    blocks=st.integers(1, 90),
    depth=st.integers(1, 2000),
    shape=st.sampled_from([(16, 32), (8, 16), (4, 16), (4, 32)]),
)
def test_a_register_tile_fits_the_registers(
    pixels: int, blocks: int, depth: int, shape: tuple[int, int]
) -> None:
    lanes, registers = shape
    tile, vectors = register_tile(pixels, blocks, depth, lanes, registers)
    assert 1 <= tile <= pixels
    assert 1 <= vectors <= blocks
    assert tile * vectors + vectors + 1 < registers
    if pixels >= 14 and blocks >= 4:
        assert tile * vectors >= 8  # enough independent sums to hide the latency
