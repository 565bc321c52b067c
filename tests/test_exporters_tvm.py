"""TVM exporter: what it answers, graphs that fold and graphs that do not, what it refuses."""

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
from numpy.typing import NDArray

from exporters import _tvm_build, _tvm_import, _tvm_lower, _tvm_target
from harness.errors import ExportFailed
from harness.interfaces import EXPORTERS, MODELS, RUNNERS, ExportJob, RunOptions
from harness.records import Artifact, ImageSpec, ModelSpec

torch = pytest.importorskip("torch", reason="the reference")
tvm = pytest.importorskip("tvm", reason="the compiler under test")

Array = NDArray[np.float32]
MakeArtifact = Callable[..., tuple[Artifact, Path]]
PARITY = 1e-4
"""Largest difference, relative to the largest magnitude of the output."""

X86 = platform.machine() == "x86_64"


def difference(found: Array, expected: Any) -> float:
    """Largest difference, relative to the largest magnitude."""
    wanted = np.asarray(expected)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


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
    module, notes, _ = _tvm_lower.lower(_tvm_import.to_relax(job), target)
    executable = _tvm_build.compile_module(module, target)
    machine = tvm.relax.VirtualMachine(executable, tvm.cpu())
    return [out.numpy() for out in machine["main"](tvm.runtime.tensor(image))], notes


@pytest.mark.slow
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
    with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
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
    monkeypatch.setattr(_tvm_target, "cpu_flags", lambda: frozenset({"sse4_2", "popcnt"}))
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


def test_activations_that_are_not_needed_together_are_planned_once(tmp_path: Path) -> None:
    relax = tvm.relax
    builder = relax.BlockBuilder()
    given = relax.Var("given", relax.TensorType((10, 100), "float32"))
    with builder.function("main", [given]):
        with builder.dataflow():
            value = given
            for _ in range(5):  # each reads all of a row before it writes: nothing is fused
                value = builder.emit(relax.op.nn.softmax(value))
            value = builder.emit_output(value)
        builder.emit_func_output(value)
    target = _tvm_target.resolve("native")
    found = _tvm_build.build(builder.get(), target, tmp_path / "model.so")
    assert int(found["activation-bytes"]) == (2 + 1) * 4 * 10 * 100  # two take turns, one leaves


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
    with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        found = session.run(golden_image)
    with np.load(shared / "reference" / "mb2-ssd-lite.npz") as golden:
        rows = golden["rows"]
        assert difference(found.logits[0, rows], golden["logits"]) < PARITY
        assert difference(found.offsets[0, rows], golden["locations"]) < PARITY


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.35])
def test_every_etinynet_width(width: float, tmp_path: Path) -> None:
    spec = MODELS.get("etinynet_ssd_lite")(("background", "a", "b"), width=width)
    network = with_statistics(spec.build(), (2, 3, 256, 256))
    image = np.random.default_rng(4).normal(0, 1, (1, 3, 256, 256)).astype(np.float32)
    found, (_, left) = run_lowered(spec, network, image, tmp_path)
    with torch.no_grad():
        single = network(torch.from_numpy(image))
        double = network.double()(torch.from_numpy(image).double())
    for one, other, exact in zip(found, single, double, strict=True):
        # a random network can lose digits that torch's own float32 loses too
        assert difference(one, exact) < max(PARITY, 3 * difference(other.numpy(), exact))
    assert left == "lowered by TVM itself, unscheduled: 2 concat"
