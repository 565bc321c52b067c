"""TVM exporter: kernels against torch on awkward shapes, graphs that fold, graphs that do not."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
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
    _tvm_import,
    _tvm_layout,
    _tvm_lower,
    _tvm_target,
)
from exporters._tvm_after import Add, Affine, After, Clip
from exporters._tvm_tiles import Window, ceil_div, register_tile, runs
from harness.errors import ExportFailed
from harness.interfaces import EXPORTERS, ExportJob, RunOptions
from harness.interfaces import RUNNERS as RUNTIMES
from harness.records import Artifact, ImageSpec, ModelSpec

torch = pytest.importorskip("torch", reason="the reference")
tvm = pytest.importorskip("tvm", reason="the compiler under test")

Array = NDArray[np.float32]
MakeArtifact = Callable[..., tuple[Artifact, Path]]
PARITY = 1e-4
"""Largest difference, relative to the largest magnitude of the output."""

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


class Odd(torch.nn.Module):  # type: ignore[misc,name-defined]  # importorskip gives Any
    """Operators in every order that a network may have them, folding and not folding."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Conv2d(3, 20, 3, 2, bias=True)
        self.stem_norm = nn.BatchNorm2d(20)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.grouped = nn.Conv2d(20, 24, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=24, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.wide = nn.Conv2d(24, 40, 1)
        self.narrow = nn.Conv2d(40, 24, 1, bias=False)
        self.late_norm = nn.BatchNorm2d(24)
        self.multiplier = nn.Conv2d(24, 48, 3, groups=24)
        self.squeeze = nn.Conv2d(24, 24, 1)
        self.head = nn.Conv2d(24, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(24, 1, 1) + 0.5)

    def forward(self, image: Any) -> tuple[Any, Any]:
        f = torch.nn.functional
        x = self.stem_norm(f.relu(self.stem(f.pad(image, (0, 1, 0, 1)))))
        x = self.grouped(self.pool(x))
        shortcut = x
        x = self.norm(self.depthwise(x)) * self.scale
        x = self.late_norm(f.relu(self.narrow(f.hardtanh(self.wide(x), -1.0, 2.0))))
        x = shortcut + x
        x = f.relu6(x + shortcut)
        gate = f.hardsigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = f.hardswish(x) * gate
        y = torch.cat([self.multiplier(x).flatten(2).mean(2), x.flatten(2).sum(2)], 1)
        y = torch.sigmoid(y).reshape(1, -1, 4)
        z = self.head(f.interpolate(self.late_norm(x), scale_factor=2.0))
        return y, z.permute(0, 2, 3, 1).reshape(1, -1, 3)


def with_statistics(network: Any, image: tuple[int, int, int, int]) -> Any:
    """The network in eval mode, with the batch-norm statistics of random images."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.momentum = None
        network.train()
        network(torch.randn(image))
        network(torch.randn(image))
    return network.eval()


def run_lowered(spec: ModelSpec, network: Any, image: Array, folder: Path) -> tuple[Any, Any]:
    """What the compiled network answers, and the exporter's notes."""
    job = ExportJob(spec=spec, network=network, options={}, calibration=None, folder=folder)
    target = _tvm_target.resolve("native")
    module, notes = _tvm_lower.lower(_tvm_import.to_relax(job), target)
    executable = _tvm_build.compile_module(module, target)
    machine = tvm.relax.VirtualMachine(executable, tvm.cpu())
    return [out.numpy() for out in machine["main"](tvm.runtime.tensor(image))], notes


def test_operators_in_any_order(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = with_statistics(Odd(), (2, 3, 29, 38))
    size = ImageSpec(height=29, width=38, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = dataclasses.replace(tiny_spec, image=size)
    image = np.random.default_rng(3).normal(0, 1, (1, 3, 29, 38)).astype(np.float32)
    found, (_, left) = run_lowered(spec, network, image, tmp_path)
    with torch.no_grad():
        expected = network(torch.from_numpy(image))
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < PARITY
    assert "2 grouped convolution" in left  # of four groups, and with two outputs a channel
    assert "batch_norm" not in left
    assert "image.resize2d" in left


def test_tiny_parity(
    tiny_spec: ModelSpec, tiny_images: Array, export_artifact: MakeArtifact
) -> None:
    artifact, folder = export_artifact("tvm_dense", tiny_spec)
    with RUNTIMES.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        found = [session.run(image[None]) for image in tiny_images]
    with torch.no_grad():
        logits, offsets = tiny_spec.build()(torch.from_numpy(tiny_images))
    assert difference(np.concatenate([f.logits for f in found]), logits) < PARITY
    assert difference(np.concatenate([f.offsets for f in found]), offsets) < PARITY
    assert [(t.name, t.shape, t.layout) for t in (*artifact.inputs, *artifact.outputs)] == [
        ("image", (1, 3, 32, 32), "NCHW"),
        ("logits", (1, 160, 5), "NPC"),
        ("offsets", (1, 160, 4), "NPC"),
    ]


def test_a_detector_is_all_kernels(tiny_spec: ModelSpec, export_artifact: MakeArtifact) -> None:
    artifact, _ = export_artifact("tvm_dense", tiny_spec)
    target, used, left = artifact.notes
    assert target.startswith("target llvm -mtriple=")
    assert "planar convolution with depthwise" not in used  # the stem is read twice
    assert "1 planar convolution" in used
    assert "pointwise convolution with depthwise convolution" in used
    assert left == "lowered by TVM itself, unscheduled: 2 concat"


def test_toolchain_says_what_the_code_needs(
    tiny_spec: ModelSpec, export_artifact: MakeArtifact
) -> None:
    artifact, _ = export_artifact("tvm_dense", tiny_spec)
    assert artifact.toolchain["apache-tvm"] == tvm.__version__
    assert int(artifact.toolchain["llvm"]) >= 15
    assert artifact.toolchain["target"].startswith("llvm -mtriple=")
    if X86:
        assert "sse4_2" in artifact.toolchain["cpu-features"].split()


def test_a_named_cpu_limits_the_vectors() -> None:
    if not X86:
        pytest.skip("names x86 CPUs")
    old, new = _tvm_target.resolve("x86-64-v2"), _tvm_target.resolve("x86-64-v3")
    assert (old.lanes, new.lanes) == (4, 8)
    assert "avx2" in new.features
    assert "avx2" not in old.features


def test_hidden_instructions_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if not X86:
        pytest.skip("hides x86 instructions")
    monkeypatch.setattr(_tvm_target, "_host_features", lambda: {"flags", "sse4_2", "popcnt"})
    target = _tvm_target.resolve("native")
    assert target.lanes == 4
    assert target.features == ("popcnt", "sse4_2")


def export(spec: ModelSpec, folder: Path, **options: Any) -> None:
    exporter = EXPORTERS.get("tvm_dense")()
    given = {**exporter.options, **options}
    exporter.export(
        ExportJob(spec=spec, network=spec.build(), options=given, calibration=None, folder=folder)
    )


def test_an_unknown_target_is_named(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"target 'pentium9': LLVM \d+ has no CPU 'pentium9'"):
        export(tiny_spec, tmp_path, target="pentium9")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_is_known_before(
    tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exporter = EXPORTERS.get("tvm_dense")()
    assert exporter.unsupported(tiny_spec, exporter.options) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = exporter.unsupported(tiny_spec, exporter.options)
    assert reason is not None
    assert "install the package gcc" in reason


def test_a_linker_that_fails_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cc = tmp_path / "cc"
    cc.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 1\n")
    cc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    builder = tvm.relax.BlockBuilder()
    given = tvm.relax.Var("given", tvm.relax.TensorType((4,), "float32"))
    with builder.function("main", [given]):
        builder.emit_func_output(builder.emit(tvm.relax.op.exp(given)))
    target = _tvm_target.resolve("native")
    with pytest.raises(ExportFailed) as caught:
        _tvm_build.build(builder.get(), target, tmp_path / "model.so")
    assert str(caught.value) == f"{cc} cannot link {tmp_path}/model.so: no space left on device"


def test_a_network_that_torch_cannot_trace_is_one_sentence(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc,name-defined]  # importorskip gives Any
        def forward(self, image: Any) -> Any:
            return image if image.sum() > 0 else -image

    spec = dataclasses.replace(tiny_spec, build=lambda: Branching().eval())
    with pytest.raises(ExportFailed, match=r"tiny cannot be imported into TVM: ") as caught:
        export(spec, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_library_needs_no_c_plus_plus(
    tiny_spec: ModelSpec, export_artifact: MakeArtifact
) -> None:
    _, folder = export_artifact("tvm_dense", tiny_spec)
    try:
        done = subprocess.run(
            ["readelf", "-d", folder / "model.so"], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("readelf is not installed")
    assert "libstdc++" not in done.stdout


@pytest.mark.slow
def test_mb2_equals_the_golden_outputs(
    golden_mb2: ModelSpec, golden_image: Array, export_artifact: MakeArtifact, shared: Path
) -> None:
    artifact, folder = export_artifact("tvm_dense", golden_mb2)
    with RUNTIMES.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        found = session.run(golden_image)
    with np.load(shared / "reference" / "mb2-ssd-lite.npz") as golden:
        rows = golden["rows"]
        assert difference(found.logits[0, rows], golden["logits"]) < PARITY
        assert difference(found.offsets[0, rows], golden["locations"]) < PARITY


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.35])
def test_every_etinynet_width(width: float, tmp_path: Path) -> None:
    from harness.interfaces import MODELS

    spec = MODELS.get("etinynet_ssd_lite")(("background", "a", "b"), width=width)
    network = with_statistics(spec.build(), (2, 3, 256, 256))
    image = np.random.default_rng(4).normal(0, 1, (1, 3, 256, 256)).astype(np.float32)
    found, (_, left) = run_lowered(spec, network, image, tmp_path)
    with torch.no_grad():
        expected = network(torch.from_numpy(image))
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < PARITY
    assert left == "lowered by TVM itself, unscheduled: 2 concat"
