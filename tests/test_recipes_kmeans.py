"""Weight clustering, and compressed weights on disk that come back to the bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import recipes
from harness.errors import BadCheckpoint, BadConfig, Unsupported
from harness.records import ModelSpec
from models._checkpoint import load_weights, read_tensors
from models._packed import pack, unpack, write_packed
from models.recipes._shared import codebook
from models.recipes.kmeans import cluster


def least_error(weights: np.ndarray[Any, Any], count: int) -> float:
    """The least squared error of ``count`` clusters, over every way to cut the sorted weights."""
    ordered = np.sort(weights.astype(np.float64))
    sums = np.concatenate([[0], np.cumsum(ordered)])
    squares = np.concatenate([[0], np.cumsum(np.square(ordered))])
    start, end = np.ix_(np.arange(len(sums)), np.arange(len(sums)))
    size = np.maximum(end - start, 1)
    error = squares[end] - squares[start] - np.square(sums[end] - sums[start]) / size
    error = np.where(end >= start, np.maximum(error, 0), np.inf)
    best = error[0]
    for _ in range(count - 1):
        best = (best[:, None] + error).min(0)
    return float(best[-1])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_clusters_are_nearly_the_best_there_are(bits: int) -> None:
    weights = np.random.default_rng(0).normal(size=400).astype(np.float32)
    made = cluster(weights, bits)
    assert len(made.values) == 2**bits
    error = float(np.square(made.values[made.indices] - weights, dtype=np.float64).sum())
    assert error <= 1.1 * least_error(weights, 2**bits)
    nearest = np.abs(weights[:, None] - made.values).argmin(1)
    np.testing.assert_array_equal(made.indices, nearest)


def test_pruned_weights_stay_zero_and_kept_ones_do_not_become_so() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=4000).astype(np.float32)
    weights[::2] = 0
    weights[1::20] *= 1e-3
    for bits in (2, 4, 8):
        made = cluster(weights, bits)
        assert len(made.values) <= 2**bits
        np.testing.assert_array_equal(made.values[made.indices] == 0, weights == 0)


def test_few_distinct_weights_are_kept_as_they_are() -> None:
    weights = np.array([0, 3, 3, -1, 0, 3], np.float32)
    made = cluster(weights, 2)
    np.testing.assert_array_equal(made.values[made.indices], weights)


def clustered(spec: ModelSpec, text: str) -> tuple[Any, tuple[str, ...]]:
    return recipes.parse(text).apply(spec, copy.deepcopy(spec.build()))


def test_layers_that_would_grow_are_left_alone(tiny_spec: ModelSpec) -> None:
    before = tiny_spec.build().state_dict()
    network, (sentence,) = clustered(tiny_spec, "kmeans:6")
    changed = {n for n, v in network.state_dict().items() if not v.equal(before[n])}
    large = {
        n for n, v in before.items() if v.ndim == 4 and v.numel() * 6 / 8 + 256 < 4 * v.numel()
    }
    assert changed == large
    assert f"clustered {len(large)} of 14 layers at 6 bits" in sentence
    assert all(codebook(network.state_dict()[name].numpy()) for name in changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [("kmeans:1", "bits 1: give 2 to 8"), ("kmeans:9", "bits 9"), ("kmeans:2.5", "is 2.5, expec")],
)
def test_impossible_bits_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        recipes.parse(text)


def test_a_network_too_small_to_cluster_is_refused(tiny_spec: ModelSpec) -> None:
    with pytest.raises(Unsupported, match=r"kmeans does not apply to .* enough weights"):
        recipes.parse("kmeans:8").apply(tiny_spec, torch.nn.Conv2d(3, 8, 3))


@pytest.mark.parametrize("text", ["kmeans:5", "prune:0.7+kmeans:3", "prune:0.9", "prune:1"])
def test_packed_weights_load_as_they_were(tiny_spec: ModelSpec, text: str, tmp_path: Path) -> None:
    network, _ = clustered(tiny_spec, text)
    path = tmp_path / "weights.safetensors"
    packed = write_packed(network, path)
    assert packed is not None
    assert packed.size_bytes == path.stat().st_size
    other = tiny_spec.build()
    load_weights(other, path)
    for name, value in network.state_dict().items():
        assert value.numpy().tobytes() == other.state_dict()[name].numpy().tobytes(), name


def test_the_size_on_disk_is_what_the_bits_come_to(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(64, 128, 1, bias=False)
    weight = layer.weight.detach().numpy()
    made = cluster(weight.ravel(), 5)
    weight[...] = made.values[made.indices].reshape(weight.shape)
    packed = write_packed(layer, tmp_path / "w.safetensors")
    assert packed is not None
    assert packed.plain_bytes == 4 * 128 * 64
    assert 0 <= packed.size_bytes - (128 * 64 * 5 // 8 + 32 * 4) < 400, "and the file's own header"


def test_what_does_not_shrink_is_not_written(tmp_path: Path) -> None:
    assert write_packed(torch.nn.Conv2d(16, 16, 1), tmp_path / "w.safetensors") is None
    assert not (tmp_path / "w.safetensors").exists()


def test_every_way_to_pack_is_exact() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(40, 30)).astype(np.float32)
    sparse = np.where(rng.random((40, 30)) < 0.9, np.float32(0), dense)
    few = rng.choice(np.array([-1.5, 0.25, 3e-39], np.float32), (40, 30))
    both = np.where(rng.random((40, 30)) < 0.9, np.float32(0), few)
    for weight, parts in [
        (sparse, {"mask", "values"}),
        (few, {"codebook", "indices"}),
        (both, {"mask", "codebook", "indices"}),
        (np.zeros((3, 50), np.float32), {"mask", "values"}),
    ]:
        packed = pack(weight)
        assert packed is not None
        assert set(packed) == parts
        assert unpack(packed, weight.shape).tobytes() == weight.tobytes()
    assert pack(dense) is None
    assert pack(np.where(sparse == 0, np.float32(-0.0), sparse)) is None, "a zero with a sign"


def test_a_damaged_packed_file_is_named(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    network, _ = clustered(tiny_spec, "kmeans:4")
    path = tmp_path / "w.safetensors"
    write_packed(network, path)
    tensors = load_file(path)
    gone = next(name for name in tensors if name.endswith(".codebook"))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del tensors[gone]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(BadCheckpoint, match="do not belong together"):
        read_tensors(path)
