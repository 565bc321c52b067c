"""Weights on disk: read with suspicion, written small.

Read are ``.safetensors`` and PyTorch's ``.pth``/``.pt``, the latter without unpickling anything but
tensors, and for models that come from there what TensorFlow wrote (`models._tf_import`). Written is
safetensors: convolution kernels as float16, everything else (biases and batch norm, a few per cent
of the bytes, with values that float16 would round to zero) as it is. Compressed weights
(`models._packed`) are read too.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.cache import sha256_file
from harness.errors import BadCheckpoint
from harness.extras import require
from harness.records import Scalar
from harness.weights import shipped_manifests
from models._packed import FORMAT, read_packed
from models._tf_import import SAVED_MODEL, is_tensorflow, transplant

_SHOWN = 3
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"
"""How a file starts that torch saved: today's format, and the one before version 1.6."""


def load_weights(network: nn.Module, path: Path) -> str:
    """Load the checkpoint ``path`` into ``network``, all of it or nothing.

    Returns:
        SHA-256 of the file, or of a saved model's graph.

    Raises:
        BadCheckpoint: missing, unreadable, not plain tensors, not finite, or of another model.
    """
    if is_tensorflow(path):
        values = transplant(network, path)
    else:
        values = read_tensors(path)
        check_fits(network, values, path)
    network.load_state_dict(values)
    return sha256_file(path / SAVED_MODEL if path.is_dir() else path)


def save_weights(network: nn.Module, path: Path, half: bool = True) -> None:
    """Write ``network``'s state dict as safetensors, kernels as float16 where ``half``.

    Raises:
        BadCheckpoint: a value that is not finite, or that float16 cannot hold.
    """
    values = {}
    for key, value in network.state_dict().items():
        stored = value.detach().cpu().contiguous()
        if half and stored.is_floating_point() and stored.ndim > 1:
            stored = stored.half()
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise BadCheckpoint(f"weights {key} are not finite: {path} was not written")
        values[key] = stored
    safetensors = require("safetensors.torch", extra="torch")
    partial = path.with_name(path.name + ".partial")
    safetensors.save_file(values, str(partial))
    partial.replace(path)


def shipped(model: str, options: Mapping[str, Scalar]) -> Path | None:
    """The checkpoint in ``models/weights/`` for a model with all its options, if there is one."""
    for manifest in shipped_manifests():
        if manifest["model"] == model and manifest["model_options"] == dict(options):
            return Path(manifest["file"])
    return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, on the CPU.

    Raises:
        BadCheckpoint: as `load_weights`.
    """
    if not path.is_file():
        raise BadCheckpoint(f"checkpoint {path} does not exist: check the path")
    if path.suffix == ".safetensors":
        values = _read_safetensors(path)
    elif path.suffix in (".pth", ".pt"):
        values = _read_torch(path)
    else:
        raise BadCheckpoint(
            f"checkpoint {path} ends in '{path.suffix}', expected .safetensors, .pth or .pt,"
            " or TensorFlow's .pb or .index"
        )
    broken = [k for k, v in values.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise BadCheckpoint(
            f"checkpoint {path} has values that are not finite in {_some(broken)}:"
            " the training that made it diverged, use an earlier one"
        )
    return values


def check_fits(network: nn.Module, values: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a checkpoint whose names or shapes are not the network's.

    Raises:
        BadCheckpoint: saying which keys are missing, unexpected or of another shape.
    """
    expected = network.state_dict()
    missing = [key for key in expected if key not in values]
    unexpected = [key for key in values if key not in expected]
    if missing or unexpected:
        raise BadCheckpoint(
            f"checkpoint {path} is of another model: {len(missing)} of {len(expected)} weights are"
            f" missing{_examples(missing)} and {len(unexpected)} are not the model's"
            f"{_examples(unexpected)}; choose the model it was trained as"
        )
    differ = [key for key, value in expected.items() if value.shape != values[key].shape]
    if not differ:
        return
    classes = _classes_of(network, values, differ)
    if classes is not None:
        raise BadCheckpoint(
            f"checkpoint {path} knows {classes} classes and the model is made for"
            f" {network.classes} (background included): give the labels it was trained with"
        )
    key = differ[0]
    raise BadCheckpoint(
        f"checkpoint {path} is of another size of the model: {len(differ)} weights differ in"
        f" shape, the first is {key}, {tuple(values[key].shape)} in the file and"
        f" {tuple(expected[key].shape)} in the model; check the model's options"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors", extra="torch")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                return read_packed(metadata, file.get_tensor, set(file.keys()))
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            start = file.read(4)
        if start == _ZIP or start[:2] == _PICKLE:
            raise _not_plain(path) from None
        raise _unreadable(path, error) from None
    except Exception as error:  # a damaged pickle may fail in any way
        raise _unreadable(path, error) from None
    plain = isinstance(values, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in values.items()
    )
    if not plain:
        raise _not_plain(path)
    return dict(values)


def _unreadable(path: Path, error: Exception) -> BadCheckpoint:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BadCheckpoint(
        f"checkpoint {path} is damaged or no checkpoint ({path.stat().st_size} bytes; {reason}):"
        " fetch or write it again"
    )


def _not_plain(path: Path) -> BadCheckpoint:
    return BadCheckpoint(
        f"checkpoint {path} is refused, because it holds more than plain tensors by name, which"
        " could run code: save model.state_dict() and use that"
    )


def _classes_of(network: nn.Module, values: Mapping[str, Tensor], differ: list[str]) -> int | None:
    """How many classes the file's heads have, if that is all in which its shapes differ."""
    ours = getattr(network, "classes", None)
    if not isinstance(ours, int):
        return None
    found = set()
    for key in differ:
        outputs = network.state_dict()[key].shape[0]
        theirs = values[key].shape[0] if values[key].ndim else 0
        if not key.startswith("classification_headers.") or theirs * ours % outputs:
            return None
        found.add(theirs * ours // outputs)
    return found.pop() if len(found) == 1 else None


def _examples(keys: list[str]) -> str:
    return f" ({_some(keys)})" if keys else ""


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
