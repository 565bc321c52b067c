"""Dense or sparse, layer by layer: what is chosen, why, and what the manifest says of it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters import _tvm_choose, _tvm_target, _tvm_time
from exporters._tvm_planes import Grid
from exporters._tvm_planes_lower import Layer
from exporters._tvm_planes_point import Point
from harness import recipes
from harness.interfaces import EXPORTERS, RUNNERS, RunOptions
from harness.records import Artifact, ModelSpec
from tests.test_exporters_tvm_sparse import PARITY, blocks_pruned, difference, normal

torch = pytest.importorskip("torch", reason="the reference")
pytest.importorskip("tvm", reason="the compiler under test")

Array = NDArray[np.float32]
MakeArtifact = Callable[..., tuple[Artifact, Path]]


def test_the_exporter_lists_its_choices(
    tiny_spec: ModelSpec, tiny_images: Array, export_artifact: MakeArtifact
) -> None:
    network, _ = recipes.parse("prune:0.9").apply(tiny_spec, copy.deepcopy(tiny_spec.build()))
    spec = dataclasses.replace(tiny_spec, build=lambda: network)
    artifact, folder = export_artifact("tvm_sparse", spec)
    assert len(artifact.layers) == sum(
        isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1)
        for module in network.modules()
    )
    for layer in artifact.layers:
        assert layer.reason == "measured"
        assert layer.dense_us is not None
        assert layer.sparse_us is not None
        assert layer.sparsity == pytest.approx(0.9, abs=0.03)
        faster = "sparse" if layer.sparse_us < layer.dense_us else "dense"
        assert layer.chosen.startswith(faster) or layer.sparse_us == layer.dense_us
    # measuring binds this thread to one core, and a pool that starts then has no other
    with RUNNERS.get("tvm_cpu")().open(artifact, folder, RunOptions(threads=1)) as session:
        found = session.run(tiny_images[:1])
    with torch.no_grad():
        logits, offsets = network(torch.from_numpy(tiny_images[:1]))
    assert difference(found.logits, logits.numpy()) < PARITY
    assert difference(found.offsets, offsets.numpy()) < PARITY


def layer_of(weight: Array, number: int = 0) -> Layer:
    grid = Grid(height=9, width=9, margin=1, lanes=8)
    point = Point(grid=grid, inputs=weight.shape[1], outputs=weight.shape[0])
    return Layer(number=number, point=point, weight=weight)


def test_too_few_zeros_stay_dense_and_say_so() -> None:
    layer = layer_of(blocks_pruned(normal(0, 32, 64), 1, 0.2))
    choice = _tvm_choose.choose([layer], _tvm_time.Times(_tvm_target.resolve("native")))[0]
    assert not choice.form.sparse
    assert choice.record.chosen.startswith("dense")
    assert "of the weights are zero, too few to gain" in choice.record.reason
    assert choice.record.dense_us is None


@pytest.mark.parametrize(("rows", "shared"), [(1, 1), (2, 2), (4, 4), (16, 4)])
def test_blocks_of_zeros_are_recognized(rows: int, shared: int) -> None:
    assert _tvm_choose.shared_rows(blocks_pruned(normal(0, 32 + rows % 4, 64), rows, 0.8)) == shared


def test_the_faster_form_is_taken_and_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path))
    target = _tvm_target.resolve("native")
    layer = layer_of(blocks_pruned(normal(0, 32, 64), 1, 0.8))
    forms = _tvm_choose.candidates(layer, target.registers)
    calls = []

    def timed(_: Any, wanted: Any, __: Any) -> list[float]:
        calls.append(len(wanted))
        return [2e-6, 3e-6, 1e-6, 4e-6][: len(wanted)]

    monkeypatch.setattr(_tvm_time, "here", timed)
    first = _tvm_choose.choose([layer], _tvm_time.Times(target))[0]
    assert first.form == forms[2] if len(forms) > 2 else forms[0]
    assert (first.record.dense_us, first.record.reason) == (2.0, "measured")
    assert _tvm_choose.choose([layer], _tvm_time.Times(target))[0] == first
    assert calls == [len(forms)]
    _tvm_choose.choose(
        [layer_of(blocks_pruned(normal(1, 32, 64), 1, 0.7))], _tvm_time.Times(target)
    )
    assert calls == [len(forms), len(forms) - 1]  # another pattern of zeros is timed anew


def test_density_decides_for_another_machine() -> None:
    target = dataclasses.replace(_tvm_target.resolve("native"), here=False)
    sparse, dense = (blocks_pruned(normal(0, 32, 64), 1, part) for part in (0.9, 0.5))
    chosen = _tvm_choose.choose([layer_of(sparse), layer_of(dense, 1)], _tvm_time.Times(target))
    assert chosen[0].form.sparse
    assert not chosen[1].form.sparse
    assert "is not the CPU of this machine" in chosen[0].record.reason


def test_it_is_an_exporter_like_its_dense_sister() -> None:
    sparse, dense = EXPORTERS.get("tvm_sparse"), EXPORTERS.get("tvm_dense")
    assert (sparse.format, sparse.options) == (dense.format, dense.options)
