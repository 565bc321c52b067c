"""TVM targets: names, what they mean, what is refused, and a library for another machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters import _tvm_build, _tvm_target
from harness.errors import ExportFailed, Unsupported
from harness.interfaces import EXPORTERS, RUNNERS, RunOptions
from harness.records import Artifact, ModelSpec

pytest.importorskip("tvm", reason="the compiler under test")
pytest.importorskip("torch", reason="imported with the network")

CROSS = "aarch64-linux-gnu-g++"


@pytest.mark.parametrize(
    ("name", "cpu", "lanes", "registers"),
    [
        ("x86-64-v2", "x86-64-v2", 4, 16),
        ("x86-64-v3", "x86-64-v3", 8, 16),
        ("x86-64-v4", "x86-64-v4", 16, 32),
        ("rpi4", "cortex-a72", 4, 32),
        ("imx93", "cortex-a55", 4, 32),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a57", "cortex-a57", 4, 32),
    ],
)
def test_names_mean_cpus(name: str, cpu: str, lanes: int, registers: int) -> None:
    target = _tvm_target.resolve(name)
    assert (target.cpu, target.lanes, target.registers) == (cpu, lanes, registers)
    assert target.text.endswith(f"-mcpu={cpu}")


def test_every_named_target_is_known() -> None:
    for name in _tvm_target.NAMED:
        assert _tvm_target.resolve(name).triple == _tvm_target.triple_of(name)


def test_instructions_of_newer_arm_cores_are_listed() -> None:
    """So that a module for a Raspberry Pi 5 is refused on a 4."""
    assert _tvm_target.resolve("rpi4").features == ()
    assert {"asimddp", "atomics"} <= set(_tvm_target.resolve("rpi5").features)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rpi9", r"LLVM \d+ has no CPU 'rpi9' for"),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-z1", "has no CPU 'cortex-z1' for aarch64"),
        ("llvm -mtriple=vax-linux-gnu", "has no back end for vax-linux-gnu"),
        ("llvm -mtripel=aarch64-linux-gnu", "'-mtripel=aarch64-linux-gnu' is none of"),
    ],
)
def test_unknown_targets_are_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ExportFailed, match=message) as caught:
        _tvm_target.resolve(name)
    assert "\n" not in str(caught.value)


def test_a_missing_cross_compiler_is_named(
    tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    exporter = EXPORTERS.get("tvm_dense")()
    reason = exporter.unsupported(tiny_spec, {**exporter.options, "target": "rpi4"})
    assert reason is not None
    assert "install the package g++-aarch64-linux-gnu" in reason
    nowhere = {**exporter.options, "target": "llvm -mtriple=vax-linux-gnu"}
    assert exporter.unsupported(tiny_spec, nowhere) is None  # LLVM says that it has no back end


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"{CROSS} is not installed")
@pytest.mark.parametrize("exporter", ["tvm_dense", "tvm_sparse"])
def test_a_library_for_a_board(
    exporter: str,
    tiny_spec: ModelSpec,
    export_artifact: Callable[..., tuple[Artifact, Path]],
) -> None:
    artifact, folder = export_artifact(exporter, tiny_spec, None, target="rpi4")
    assert artifact.toolchain["library-machine"] == "AArch64"
    assert artifact.toolchain["library-needs"].split() in (
        ["libc.so.6"],
        ["libm.so.6", "libc.so.6"],
    )
    with pytest.raises(Unsupported, match="was built for aarch64 and this machine is"):
        RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1))
    with pytest.raises(ExportFailed, match="was linked for AArch64, not for"):
        _tvm_build.examine(folder / "model.so", _tvm_target.resolve("x86-64-v3"))
