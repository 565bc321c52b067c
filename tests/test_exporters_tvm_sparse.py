"""Sparse kernels on padded planes: each against numpy or torch, whole networks, the choice."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters import (
    _tvm_build,
    _tvm_import,
    _tvm_planes_copy,
    _tvm_planes_lower,
    _tvm_planes_point,
    _tvm_planes_strip,
    _tvm_planes_window,
    _tvm_target,
    _tvm_tir,
)
from exporters._tvm_after import Add, Affine, Clip
from exporters._tvm_planes import Grid, margin, reach, split
from exporters._tvm_planes_point import Form, Point
from exporters._tvm_planes_taps import Taps, half_pitch
from exporters._tvm_planes_window import Windowed
from exporters._tvm_tiles import Window
from harness import recipes
from harness.interfaces import ExportJob
from harness.records import Artifact, ImageSpec, ModelSpec
from tests.test_exporters_tvm import Odd, with_statistics

torch = pytest.importorskip("torch", reason="the reference")
tvm = pytest.importorskip("tvm", reason="the compiler under test")

Array = NDArray[np.float32]
MakeArtifact = Callable[..., tuple[Artifact, Path]]
PARITY = 1e-4
FORMS = (
    Form(sparse=False, rows=6, vectors=2),
    Form(sparse=True, rows=1, vectors=3),
    Form(sparse=True, rows=1, vectors=2, panel=8),
    Form(sparse=True, rows=4, vectors=2),
    Form(sparse=True, rows=4, vectors=2, panel=16),
)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blocks_pruned(weight: Array, rows: int, sparsity: float) -> Array:
    stay = np.random.default_rng(9).random((-(-len(weight) // rows), weight.shape[1])) >= sparsity
    return weight * np.repeat(stay, rows, axis=0)[: len(weight)]


def run(functions: dict[str, Any], calls: dict[str, list[Array]], lanes: int) -> dict[str, Array]:
    """Compile kernels together and answer what each writes into its last, spoilt, argument."""
    target = _tvm_target.resolve("native")
    assert target.lanes == lanes
    built = _tvm_build.compile_module(tvm.IRModule(functions), target)
    found = {}
    for name, arguments in calls.items():
        tensors = [tvm.runtime.tensor(array) for array in arguments]
        built[name](*tensors)
        found[name] = tensors[-1].numpy()
    return found


def spoilt(channels: int, grid: Grid) -> Array:
    return np.full(channels * grid.size, np.nan, np.float32)


def outside(planes: Array, grid: Grid) -> Array:
    """The padding of planes: above and below, and between rows."""
    rest = planes.reshape(-1, grid.size).copy()
    inner = rest[:, grid.origin : grid.origin + grid.span]
    inner.reshape(-1, grid.height, grid.pitch)[:, :, : grid.width] = 0
    return rest


@pytest.fixture(scope="module")
def lanes() -> int:
    return int(_tvm_target.resolve("native").lanes)


@pytest.mark.parametrize(("height", "width", "wide"), [(19, 19, 1), (1, 1, 0), (5, 38, 2)])
def test_a_grid_keeps_rows_apart_and_planes_off_each_other(
    height: int, width: int, wide: int
) -> None:
    grid = Grid(height=height, width=width, margin=wide, lanes=8)
    image = normal(0, 3, height, width)
    planes = grid.fill(image)
    np.testing.assert_array_equal(grid.take(planes), image)
    assert grid.size % 32 == 16  # an odd number of cache lines
    assert grid.origin % 16 == 0
    assert not outside(planes, grid).any()
    lowest, highest = grid.at(-wide, -wide), grid.at(height - 1 + wide, width - 1 + wide)
    assert lowest >= 0
    assert highest + grid.lanes <= grid.size
    assert grid.inside().sum() == height * width


def test_margins_hold_what_windows_reach() -> None:
    same = Window(height=10, width=10, kernel=(3, 3), padding=(1, 1, 1, 1))
    wide = Window(height=10, width=10, kernel=(5, 5), stride=(2, 2), padding=(2, 2, 2, 2))
    tensorflow = Window(height=10, width=10, kernel=(3, 3), stride=(2, 2), padding=(0, 0, 1, 1))
    assert [reach(window) for window in (same, wide, tensorflow)] == [(1, 1), (2, 2), (1, 1)]
    assert margin([same, wide]) == 2
    assert margin([]) == 0
    assert [split(14, 12), split(48, 12), split(1, 6)] == [7, 12, 1]


def test_halves_hold_every_tap_of_a_stride() -> None:
    window = Window(height=19, width=19, kernel=(5, 5), stride=(2, 2), padding=(2, 2, 2, 2))
    half = half_pitch(window, window.out_width + 2, 8)
    row = np.arange(-2.0, 2 * half - 2)  # by column of the image; two of padding come first
    halves = np.concatenate([row[0::2], row[1::2]])
    taps = Taps(None, window, half)
    for tap in range(5):
        read = halves[taps.place(tap) : taps.place(tap) + window.out_width]
        np.testing.assert_array_equal(read, 2.0 * np.arange(window.out_width) - 2 + tap)
    whole = dataclasses.replace(window, stride=(1, 1))
    assert half_pitch(whole, 21, 8) == 0
    assert [Taps(None, whole).place(tap) for tap in range(5)] == [0, 1, 2, 3, 4]


def test_pointwise_kernels_equal_matrix_products(lanes: int) -> None:
    grid = Grid(height=6, width=4 * lanes - 1, margin=1, lanes=lanes)
    inputs, outputs = 20, 14  # neither six nor four fit
    image, bias = normal(0, inputs, grid.height, grid.width), normal(1, outputs)
    weight = blocks_pruned(normal(2, outputs, inputs), 4, 0.6)
    weight[4:8] = 0  # a group without any weight
    other = normal(3, outputs, grid.height, grid.width)
    scale, shift = normal(4, outputs), normal(5, outputs)
    point = Point(
        grid=grid,
        inputs=inputs,
        outputs=outputs,
        zeroed=True,
        after=(Clip(-1.0, 1.0), Affine(), Add(), Clip(0.0, None)),
    )
    functions, calls = {}, {}
    for number, form in enumerate(FORMS):
        packed = _tvm_planes_point.pack(weight, grid.size, form)
        name = f"form{number}"
        functions[name] = _tvm_planes_point.kernel(name, point, form, packed.sizes)
        arguments = [grid.fill(image), *packed.arrays(), bias, scale, shift, grid.fill(other)]
        calls[name] = [*arguments, grid.inside(), spoilt(outputs, grid)]
    sums = np.einsum("oi,ihw->ohw", weight, image) + bias[:, None, None]
    each = (scale[:, None, None], shift[:, None, None])
    expected = np.maximum(np.clip(sums, -1, 1) * each[0] + each[1] + other, 0)
    for name, planes in run(functions, calls, lanes).items():
        np.testing.assert_allclose(grid.take(planes), expected, atol=1e-4, err_msg=name)
        assert not outside(planes, grid).any(), name


def _sources(module: Any) -> list[str]:
    own = [module.inspect_source("ll")] if module.kind == "llvm" else []
    return own + [source for part in module.imports for source in _sources(part)]


def test_register_tiles_are_allocated_by_nobody(lanes: int) -> None:
    grid = Grid(height=6, width=4 * lanes - 1, margin=1, lanes=lanes)
    point = Point(grid=grid, inputs=20, outputs=12)
    packed = _tvm_planes_point.pack(normal(0, 12, 20), grid.size, FORMS[1])
    kernel = _tvm_planes_point.kernel("tile", point, FORMS[1], packed.sizes)
    target = _tvm_target.resolve("native")

    def allocations(function: Any) -> int:
        built = _tvm_build.compile_module(tvm.IRModule({"tile": function}), target)
        (code,) = _sources(built.mod)
        return code.count("load ptr, ptr @__TVMBackendAllocWorkspace")

    assert allocations(kernel) == 0
    # other functions keep the pass that moves buffers to memory: TVM's own schedules need it
    assert allocations(kernel.without_attr(_tvm_tir.OWN)) > 0


@pytest.mark.parametrize("inputs", [0, 3])
def test_windows_equal_torch(lanes: int, inputs: int) -> None:
    functions, calls, expected, grids = {}, {}, {}, {}
    cases = [(3, 1, 1, 20, False), (3, 2, 1, 37, True), (5, 2, 2, 18, True), (3, 1, 1, 3, True)]
    for number, (size, stride, pad, extent, zeroed) in enumerate(cases):
        window = Window(
            height=extent + 1,
            width=extent,
            kernel=(size, size),
            stride=(stride, stride),
            padding=(pad,) * 4,
        )
        source = Grid(height=extent + 1, width=extent, margin=pad, lanes=lanes)
        grid = Grid(height=window.out_height, width=window.out_width, margin=pad, lanes=lanes)
        outputs = 11
        layer = Windowed(
            window=window,
            source=source,
            grid=grid,
            outputs=outputs,
            inputs=inputs,
            zeroed=zeroed,
            after=(Clip(0.0, 6.0),),
        )
        image = normal(number, inputs or outputs, extent + 1, extent)
        weight, bias = normal(7, outputs, inputs or 1, size, size), normal(8, outputs)
        name = f"case{number}"
        functions[name] = _tvm_planes_window.kernel(name, layer)
        packed = _tvm_planes_window.pack(layer, weight)
        calls[name] = [source.fill(image), packed, bias, spoilt(outputs, grid)]
        answer = torch.nn.functional.conv2d(
            *map(torch.from_numpy, (image[None], weight, bias)),
            stride=stride,
            padding=pad,
            groups=1 if inputs else outputs,
        )
        expected[name], grids[name] = answer.clamp(0, 6)[0].numpy(), (grid, zeroed)
    for name, planes in run(functions, calls, lanes).items():
        grid, zeroed = grids[name]
        np.testing.assert_allclose(grid.take(planes), expected[name], atol=1e-4, err_msg=name)
        padding = outside(planes, grid)
        above = padding[:, : grid.origin]
        assert np.isfinite(padding).all()
        assert not (padding if zeroed else above).any()


def test_conversions_keep_every_pixel(lanes: int) -> None:
    grid = Grid(height=5, width=lanes + 3, margin=1, lanes=lanes)
    small = dataclasses.replace(grid, width=1)
    image, dot = normal(0, 11, 5, lanes + 3), normal(1, 11, 5, 1)
    functions = {
        "from": _tvm_planes_copy.from_plain("from", 11, grid),
        "from_small": _tvm_planes_copy.from_plain("from_small", 11, small),
        "to": _tvm_planes_copy.to_plain("to", 11, grid),
        "rows": _tvm_planes_copy.to_rows("rows", 11, grid),
    }
    empty = np.full(image.size, np.nan, np.float32)
    found = run(
        functions,
        {
            "from": [image.ravel(), spoilt(11, grid)],
            "from_small": [dot.ravel(), spoilt(11, small)],
            "to": [grid.fill(image), empty],
            "rows": [grid.fill(image), empty],
        },
        lanes,
    )
    np.testing.assert_array_equal(found["from"], grid.fill(image))
    np.testing.assert_array_equal(found["from_small"], small.fill(dot))
    np.testing.assert_array_equal(found["to"], image.ravel())
    np.testing.assert_array_equal(found["rows"], image.transpose(1, 2, 0).ravel())


def difference(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("panel", [0, 8])
def test_a_network_with_fused_blocks(
    panel: int,
    tiny_spec: ModelSpec,
    tiny_images: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tvm_planes_lower, "FUSED_BYTES", 0)
    chain = recipes.parse("prune:0.6,pattern=4x1")
    network, _ = chain.apply(tiny_spec, copy.deepcopy(tiny_spec.build()))
    job = ExportJob(spec=tiny_spec, network=network, options={}, calibration=None, folder=tmp_path)
    target = _tvm_target.resolve("native")
    module = _tvm_import.to_relax(job)
    layers = _tvm_planes_lower.layers(module, target)
    forms = {
        layer.number: dataclasses.replace(
            FORMS[index % 2 * 3],
            vectors=1 if panel else split(layer.point.grid.vectors, 2),
            panel=panel,
        )
        for index, layer in enumerate(layers)
    }
    lowered, notes, _ = _tvm_planes_lower.lower(module, target, forms)
    assert "1 inverted residual" in notes[0]
    machine = tvm.relax.VirtualMachine(_tvm_build.compile_module(lowered, target), tvm.cpu())
    with torch.no_grad():
        expected = [out.numpy() for out in network(torch.from_numpy(tiny_images[:1]))]
    found = machine["main"](tvm.runtime.tensor(tiny_images[:1]))
    for one, other in zip(found, expected, strict=True):
        assert difference(one.numpy(), other) < PARITY


class OnePixelEach(torch.nn.Module):
    """Depthwise 1x1 convolutions, as EtinyNet's branches have them, wherever they can stand."""

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.body = torch.nn.Sequential(
            conv(3, 8, 3, 2, 1),
            conv(8, 8, 1, groups=8),
            conv(8, 12, 1),
            conv(12, 12, 1, groups=12),
            conv(12, 12, 3, padding=1, groups=12),
            conv(12, 12, 1),
        )

    def forward(self, image: Any) -> tuple[Any, Any]:
        rows = self.body(image).permute(0, 2, 3, 1)
        return rows.reshape(1, -1, 3), rows.reshape(1, -1, 4)


class Separable(torch.nn.Module):
    """Depthwise and pointwise by turns, as in MobileNetV1: each pointwise ends three layers that
    one kernel could compute, and begins the next three.
    """

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        layers = [conv(3, 12, 3, 2, 1), torch.nn.ReLU()]
        for _ in range(4):
            layers += [conv(12, 12, 3, padding=1, groups=12), torch.nn.ReLU()]
            layers += [conv(12, 12, 1), torch.nn.ReLU()]
        self.body = torch.nn.Sequential(*layers)

    def forward(self, image: Any) -> tuple[Any, Any]:
        rows = self.body(image).permute(0, 2, 3, 1)
        return rows.reshape(1, -1, 3), rows.reshape(1, -1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OnePixelEach, Separable, Odd])
@pytest.mark.parametrize("fused_bytes", [0, 10**9])
def test_networks_of_other_kinds(
    kind: type[Any],
    fused_bytes: int,
    tiny_spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tvm_planes_lower, "FUSED_BYTES", fused_bytes)
    monkeypatch.setattr(_tvm_planes_strip, "SCRATCH_BYTES", 0)  # strips shorter than a tile
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = with_statistics(kind(), (2, 3, 29, 38))
    image = ImageSpec(height=29, width=38, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = dataclasses.replace(tiny_spec, image=image)
    job = ExportJob(spec=spec, network=network, options={}, calibration=None, folder=tmp_path)
    target = _tvm_target.resolve("native")
    module = _tvm_import.to_relax(job)
    forms = {
        layer.number: Form(sparse=True, rows=1, vectors=split(layer.point.grid.vectors, 14))
        for layer in _tvm_planes_lower.layers(module, target)
    }
    lowered, notes, _ = _tvm_planes_lower.lower(module, target, forms)
    if fused_bytes and kind is Separable:
        assert re.search(r"\d pointwise, depthwise convolution", notes[0])
    machine = tvm.relax.VirtualMachine(_tvm_build.compile_module(lowered, target), tvm.cpu())
    picture = normal(3, 1, 3, 29, 38)
    found = machine["main"](tvm.runtime.tensor(picture))
    with torch.no_grad():
        expected = network(torch.from_numpy(picture))
    for one, other in zip(found, expected, strict=True):
        assert difference(one.numpy(), other.numpy()) < PARITY
