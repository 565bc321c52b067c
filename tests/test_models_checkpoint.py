"""Checkpoints: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from harness.errors import BadCheckpoint
from harness.interfaces import MODELS
from harness.records import encode
from harness.requests import parse
from harness.weights import SHIPPED
from models._checkpoint import load_weights, read_tensors, save_weights, shipped
from models.training.settings import from_settings
from models.training.shipping import read_manifest

LABELS = ("background", "disc", "square")
MANIFESTS = sorted(SHIPPED.glob("*.json"))


def etinynet(width: float = 0.35, labels: tuple[str, ...] = LABELS) -> nn.Module:
    network: nn.Module = MODELS.get("etinynet_ssd_lite")(labels, width=width).build()
    return network


def refusal(network: nn.Module, path: Path) -> str:
    """The one sentence with which ``path`` is refused; the network must stay as it was."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(BadCheckpoint) as caught:
        load_weights(network, path)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_checkpoint_round_trip_is_exact(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    source, target = etinynet(), etinynet()
    path = tmp_path / f"weights{suffix}"
    torch.save(source.state_dict(), path)
    assert load_weights(target, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_saved_weights_are_half_for_kernels_only(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = etinynet(), etinynet()
    source.state_dict()["base_net.2.num_batches_tracked"].fill_(7)
    path = tmp_path / "weights.safetensors"
    save_weights(source, path)
    for key, stored in read_tensors(path).items():
        value = source.state_dict()[key]
        assert stored.dtype == (torch.float16 if value.ndim > 1 else value.dtype), key
    load_weights(target, path)
    for key, value in source.state_dict().items():
        loaded = target.state_dict()[key]
        assert loaded.dtype == value.dtype
        expected = value.half().float() if value.ndim > 1 else value
        assert torch.equal(loaded, expected), key
    assert not list(tmp_path.glob("*.partial"))


def test_saved_weights_can_be_exact(tmp_path: Path) -> None:
    source, target = etinynet(), etinynet()
    path = tmp_path / "weights.safetensors"
    save_weights(source, path, half=False)
    load_weights(target, path)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_float16_cannot_hold_are_not_written(tmp_path: Path, value: float) -> None:
    network = etinynet()
    network.state_dict()["base_net.0.weight"].view(-1)[3] = value
    path = tmp_path / "weights.safetensors"
    with pytest.raises(BadCheckpoint, match=r"base_net\.0\.weight are not finite"):
        save_weights(network, path)
    assert not path.exists()


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(etinynet(), tmp_path / "none.pth")


def test_unknown_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x")
    assert "expected .safetensors, .pth or .pt" in refusal(etinynet(), path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, -200])
def test_truncated_file(tmp_path: Path, suffix: str, kept: int) -> None:
    network, path = etinynet(), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_weights(network, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "damaged or no checkpoint" in refusal(network, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bytes_that_are_no_checkpoint(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"<html>404 not found</html>" * 50)
    assert "damaged or no checkpoint" in refusal(etinynet(), path)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("legacy", [True, False])
def test_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path, proof = tmp_path / "weights.pth", tmp_path / "ran"
    content = {"base_net.0.weight": Evil(proof)}
    if legacy:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    assert "more than plain tensors" in refusal(etinynet(), path)
    assert not proof.exists()


@pytest.mark.parametrize("make", ["module", "nested", "list"])
def test_torch_file_without_plain_tensors_is_refused(tmp_path: Path, make: str) -> None:
    network, path = etinynet(), tmp_path / "weights.pth"
    content: Any = {
        "module": network,
        "nested": {"epoch": 3, "state_dict": network.state_dict()},
        "list": [torch.zeros(3)],
    }[make]
    torch.save(content, path)
    assert "save model.state_dict()" in refusal(network, path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network, path = etinynet(), tmp_path / "weights.pth"
    values = {key: value.clone() for key, value in network.state_dict().items()}
    values["base_net.2.bias"][0] = float("nan")
    torch.save(values, path)
    message = refusal(network, path)
    assert "not finite" in message
    assert "base_net.2.bias" in message


def test_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    other = MODELS.get("mb2_ssd_lite")(LABELS, width=0.25).build()
    path = tmp_path / "weights.pth"
    torch.save(other.state_dict(), path)
    message = refusal(etinynet(), path)
    missing = len(set(etinynet().state_dict()) - set(other.state_dict()))
    assert f"{missing} of {len(etinynet().state_dict())} weights are missing" in message
    assert "base_net.0.weight" in message  # the first that is missing
    assert "base_net.0.0.weight" in message  # the first that is too many


def test_checkpoint_with_one_key_too_few(tmp_path: Path) -> None:
    network, path = etinynet(), tmp_path / "weights.pth"
    values = dict(network.state_dict())
    del values["extras.1.0.bias"]
    torch.save(values, path)
    message = refusal(network, path)
    assert f"1 of {len(values) + 1} weights are missing (extras.1.0.bias)" in message
    assert "and 0 are not the model's;" in message


def test_checkpoint_of_another_width(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(etinynet(0.5).state_dict(), path)
    message = refusal(etinynet(0.35), path)
    assert "base_net.0.weight, (16, 3, 3, 3) in the file and (11, 3, 3, 3) in the model" in message


def test_checkpoint_of_another_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(etinynet(labels=tuple("abcdefg")).state_dict(), path)
    message = refusal(etinynet(), path)
    assert "knows 7 classes and the model is made for 3" in message


def test_some_checkpoints_are_shipped() -> None:
    models = {json.loads(path.read_text())["model"] for path in MANIFESTS}
    assert models == {"mb2_ssd_lite", "etinynet_ssd_lite"}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_shipped_checkpoint_is_what_its_manifest_says(manifest: Path) -> None:
    said = json.loads(manifest.read_text())
    path = manifest.with_suffix(".safetensors")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]
    assert path.stat().st_size == said["size_bytes"]
    assert shipped(said["model"], said["model_options"]) == path
    spec = MODELS.get(said["model"])(tuple(said["labels"]), **said["model_options"])
    assert dict(spec.options) == said["model_options"]
    network: nn.Module = spec.build()
    assert load_weights(network, path) == said["sha256"]
    logits: Tensor
    with torch.no_grad():
        logits, _ = network(torch.zeros(1, 3, spec.image.height, spec.image.width))
    assert logits.shape == (1, len(spec.priors), len(said["labels"]))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_shipped_manifest_s_last_command_means_its_options(manifest: Path) -> None:
    said = read_manifest(manifest.with_suffix(".safetensors"))
    for words in map(str.split, said.commands):
        assert words[:2] == ["detbench", "train"]
        assert words[3] == "-o"
        assert words[5::2] == ["--set"] * len(words[5::2])
        request = parse(words[2])
        options = from_settings(request.name, request.options, words[4], words[6::2])
    # left out, it is shapes:val on shapes; the manifests name it either way
    meant = msgspec.structs.replace(options, evaluate_data=options.evaluate_data or "shapes:val")
    assert meant.evaluate_data == "shapes:val"
    assert encode(meant) == encode(said.options)
    assert said.score is not None
    assert said.score.images == 1000


def test_nothing_is_shipped_for_other_options() -> None:
    assert shipped("etinynet_ssd_lite", {"width": 0.123}) is None
