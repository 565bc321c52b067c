"""Weights from TensorFlow: a frozen graph, a saved model or a checkpoint, into a torch network.

Each variable has one place in the network. Kernels lie as (h, w, in, out) in TensorFlow, depthwise
ones as (h, w, in, multiplier), and box predictors answer (y, x, height, width).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.errors import BadCheckpoint
from harness.extras import require, tensorflow

Array = NDArray[Any]
GRAPH, SAVED_MODEL, CHECKPOINT = ".pb", "saved_model.pb", ".index"
_WEIGHT = re.compile(
    r"(weights|biases|BatchNorm/(gamma|beta|moving_mean|moving_variance))$"  # depthwise_ included
)
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


class Scope(NamedTuple):
    """One convolution's variables.

    Attributes:
        name: TensorFlow's scope.
        convolution: path of our convolution.
        norm: path of the batch norm after it; without one the convolution has biases.
        boxes: its channels are boxes.
    """

    name: str
    convolution: str
    norm: str = ""
    boxes: bool = False


class FromTensorFlow(Protocol):
    """A network that TensorFlow's weights fit."""

    def tensorflow_scopes(self) -> Iterable[Scope]: ...


def is_tensorflow(path: Path) -> bool:
    """Whether ``path`` is named like something that TensorFlow wrote."""
    return path.suffix in (GRAPH, CHECKPOINT) or (path / SAVED_MODEL).is_file()


def transplant(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The state dict of ``network`` from the variables in ``path``.

    Raises:
        BadCheckpoint: nothing that TensorFlow wrote, or as `assemble`.
        MissingExtra: TensorFlow is not installed.
    """
    if not hasattr(network, "tensorflow_scopes"):
        raise BadCheckpoint(
            f"{path} is TensorFlow's, and this model has no original there: give a PyTorch"
            " checkpoint, or choose ssdlite_mobilenet_v2_coco"
        )
    return assemble(network, _read(path), path)


def assemble(network: nn.Module, found: Mapping[str, Array], path: Path) -> dict[str, Tensor]:
    """The state dict of ``network`` from TensorFlow's variables by name.

    Raises:
        BadCheckpoint: another model's, or a variable that is missing, too many, of another shape
            or not finite; ``path`` is what the sentence names.
    """
    places = dict(_places(cast("FromTensorFlow", network).tensorflow_scopes(), network))
    _check(places, found, network, path)
    state = dict(network.state_dict())
    for name, (key, boxes) in places.items():
        state[key] = torch.from_numpy(_ours(found[name], state[key].ndim, name, boxes))
    return state


def _places(scopes: Iterable[Scope], network: nn.Module) -> Iterator[tuple[str, tuple[str, bool]]]:
    """For each variable its key in our state dict and whether its channels are boxes."""
    for scope in scopes:
        convolution = cast("nn.Conv2d", network.get_submodule(scope.convolution))
        prefix = "depthwise_" if convolution.groups > 1 else ""
        yield f"{scope.name}/{prefix}weights", (f"{scope.convolution}.weight", scope.boxes)
        if not scope.norm:
            yield f"{scope.name}/biases", (f"{scope.convolution}.bias", scope.boxes)
            continue
        for ours, theirs in _NORM.items():
            yield f"{scope.name}/BatchNorm/{theirs}", (f"{scope.norm}.{ours}", False)


def _ours(value: Array, rank: int, name: str, boxes: bool) -> Array:
    """A variable in torch's layout."""
    if rank == 4:
        axes = (2, 3, 0, 1) if name.endswith("depthwise_weights") else (3, 2, 0, 1)
        value = value.transpose(axes)
    if boxes:  # (y, x, height, width) of every shape becomes (x, y, width, height)
        pairs = value.reshape(-1, 2, 2, *value.shape[1:])
        value = pairs[:, :, ::-1].reshape(value.shape)
    return np.ascontiguousarray(value, np.float32)


def _check(
    places: Mapping[str, tuple[str, bool]],
    found: Mapping[str, Array],
    network: nn.Module,
    path: Path,
) -> None:
    missing = [name for name in places if name not in found]
    if missing:
        raise BadCheckpoint(
            f"{path} lacks {len(missing)} of the {len(places)} variables of this model, the first"
            f" is {missing[0]}: give the model's own frozen graph, saved model or checkpoint"
        )
    more = [name for name in found if name not in places]
    if more:
        raise BadCheckpoint(
            f"{path} has {len(more)} variables that this model does not have, the first is"
            f" {more[0]}: it is of another model"
        )
    state = network.state_dict()
    for name, (key, _) in places.items():
        wanted = tuple(state[key].shape)
        got = found[name]
        if got.ndim != len(wanted) or _ours(got, len(wanted), name, False).shape != wanted:
            classes = ": give the labels it was trained with" if "/ClassPredictor/" in name else ""
            raise BadCheckpoint(
                f"{path} has {name} in the shape {got.shape}, which does not fit the model's"
                f" {wanted}{classes or ': it is of another size of the model'}"
            )
        if not np.isfinite(got).all():
            raise BadCheckpoint(
                f"{path} has values that are not finite in {name}: fetch or write it again"
            )


def _read(path: Path) -> dict[str, Array]:
    """The weights in ``path`` by TensorFlow's names."""
    if not path.exists():
        raise BadCheckpoint(f"checkpoint {path} does not exist: check the path")
    folder = path.parent if path.name == SAVED_MODEL else path
    if path.suffix == CHECKPOINT:
        return _from_checkpoint(path.with_suffix(""), path)
    if folder.is_dir():
        variables = folder / "variables" / "variables"
        if variables.with_suffix(CHECKPOINT).is_file():
            return _from_checkpoint(variables, path)
        return _from_graph(_saved_graph(folder / SAVED_MODEL))
    return _from_graph(_parsed(path, _graph_kind()))


def _from_checkpoint(prefix: Path, path: Path) -> dict[str, Array]:
    tf = tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = [name for name in reader.get_variable_to_shape_map() if _WEIGHT.search(name)]
        return {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, ValueError) as error:
        raise _not_tensorflow(path, str(error)) from None


def _graph_kind() -> Any:
    return tensorflow().compat.v1.GraphDef


def _saved_graph(path: Path) -> Any:
    tensorflow()
    proto = require("tensorflow.core.protobuf.saved_model_pb2", extra="tflite")
    saved = _parsed(path, proto.SavedModel)
    if not saved.meta_graphs:
        raise _not_tensorflow(path, "it holds no graph")
    return saved.meta_graphs[0].graph_def


def _parsed(path: Path, kind: Any) -> Any:
    message = kind()
    errors = require("google.protobuf.message", extra="tflite")
    try:
        message.ParseFromString(path.read_bytes())
    except (errors.DecodeError, OSError) as error:
        raise _not_tensorflow(path, str(error)) from None
    return message


def _from_graph(graph: Any) -> dict[str, Array]:
    tf = tensorflow()
    return {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.node
        if node.op == "Const" and _WEIGHT.search(node.name)
    }


def _not_tensorflow(path: Path, reason: str) -> BadCheckpoint:
    first = (reason.strip().splitlines() or ["unreadable"])[0]
    return BadCheckpoint(
        f"checkpoint {path} is damaged or nothing that TensorFlow wrote ({first}): fetch or write"
        " it again"
    )
