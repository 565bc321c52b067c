"""What a network costs on paper: multiply-accumulates, parameters, sizes, activations, by stage.

Shapes alone are followed (torch's ``meta`` device), so that nothing is computed. The
multiply-accumulates (MACs) are half of what torch's own FLOP counter says
(`torch.utils.flop_counter`): convolutions and matrix products; batch norms, activations and pools
are not counted, since runtimes fold or fuse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.extras import require
from harness.records import Cost, ModelSpec

IN_PLACE = frozenset(
    {
        "native_batch_norm",
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
        "relu",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "clamp",
    }
)
"""Operators of one input that a runtime fuses with what makes it: without memory of their own."""


class Stage(NamedTuple):
    """Layers of one part of the network whose answers have one size.

    Attributes:
        part: name of the network's member, ``base_net``.
        output: channels, height and width of its last convolution's answer; empty for what never
            runs.
    """

    part: str
    output: tuple[int, ...]
    parameters: int
    macs: int


class Profile(NamedTuple):
    """Of one image.

    Attributes:
        activation_bytes: the most that is alive at one time, in float32.
        moved: elements that layers with MACs read and write, their weights not counted.
    """

    parameters: int
    macs: int
    activation_bytes: int
    moved: int
    stages: tuple[Stage, ...]

    def size_bytes(self, bytes_each: int) -> int:
        """Size of the weights where each takes so many bytes: 4, 2, 1 for fp32, fp16, int8."""
        return self.parameters * bytes_each

    def numbers(self) -> dict[str, int]:
        """The figures of the whole network by name."""
        return {
            "parameters": self.parameters,
            "macs": self.macs,
            "float32_bytes": self.size_bytes(4),
            "float16_bytes": self.size_bytes(2),
            "int8_bytes": self.size_bytes(1),
            "activation_bytes": self.activation_bytes,
            "moved": self.moved,
        }


class _Call(NamedTuple):
    """One operator as it ran: storages read and written, with the bytes of those written."""

    name: str
    reads: tuple[int, ...]
    writes: dict[int, int]


def profile(spec: ModelSpec) -> Profile:
    """Follow one image through the network.

    Raises:
        MissingExtra: torch is not installed.
    """
    torch = require("torch", extra="torch")
    network = spec.build().to("meta").eval()
    image = torch.zeros(1, 3, spec.image.height, spec.image.width, device="meta")
    named = {_storage(one): name for name, one in network.named_parameters()}
    owned = {*named, *(_storage(one) for one in network.buffers())}
    trace = _trace(torch, network, image)
    calls = [_call(step, owned) for step in trace]
    macs: dict[str, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}
    moved = 0
    registry = require("torch.utils.flop_counter", extra="torch").flop_registry
    for function, arguments, named_arguments, answer in trace:
        count = registry.get(function.overloadpacket)
        if count is None:
            continue
        flops = count(*arguments, **named_arguments, out_val=answer)
        weights = [
            named[_storage(one)] for one in _tensors(torch, arguments) if _storage(one) in named
        ]
        owner = _layer(weights[0]) if weights else ""
        macs[owner] = macs.get(owner, 0) + flops // 2
        outputs[owner] = tuple(answer.shape[1:])
        read = [one for one in _tensors(torch, arguments) if _storage(one) not in owned]
        moved += sum(one.numel() for one in (*read, answer))
    sizes = {name: one.numel() for name, one in network.named_parameters()}
    return Profile(
        parameters=sum(sizes.values()),
        macs=sum(macs.values()),
        activation_bytes=peak(calls, _storage(image), image.numel() * 4),
        moved=moved,
        stages=_stages(sizes, macs, outputs),
    )


def cost_of(spec: ModelSpec) -> Cost:
    """What goes into an artifact's manifest.

    Raises:
        MissingExtra: torch is not installed.
    """
    found = profile(spec)
    return Cost(macs=found.macs, parameters=found.parameters, moved=found.moved)


def peak(calls: list[_Call], image: int, image_bytes: int) -> int:
    """Most bytes alive at one time, each storage from the call that makes it to its last reader."""
    last = {image: 0}
    for index, call in enumerate(calls):
        last |= dict.fromkeys((*call.reads, *call.writes), index)
    alive, place, most = {image: image_bytes}, {image: image}, image_bytes
    for index, call in enumerate(calls):
        reads = {place.get(one, one) for one in call.reads}
        for made, size in call.writes.items():
            if made in place:  # a view, or written in place
                continue
            (source,) = reads if len(reads) == 1 else (None,)
            fused = call.name in IN_PLACE and source is not None and last[source] <= index
            place[made] = source if fused and source is not None else made
            alive.setdefault(place[made], size)
        for one in (*call.reads, *call.writes):
            owner = place.get(one, one)
            last[owner] = max(last[owner], last[one])
        most = max(most, sum(alive.values()))
        alive = {one: size for one, size in alive.items() if last[one] > index}
    return most


def _trace(torch: Any, network: Any, image: Any) -> list[tuple[Any, Any, Any, Any]]:
    """Every operator that ran, with arguments and answer, which keeps every storage its own."""
    dispatch: Any = require("torch.utils._python_dispatch", extra="torch").TorchDispatchMode
    found: list[tuple[Any, Any, Any, Any]] = []

    class Recorder(dispatch):  # type: ignore[misc]  # torch comes as Any
        def __torch_dispatch__(
            self, function: Any, types: Any, arguments: Any = (), named: Any = None
        ) -> Any:
            del types
            answer = function(*arguments, **(named or {}))
            found.append((function, arguments, named or {}, answer))
            return answer

    with torch.no_grad(), Recorder():
        network(image)
    return found


def _call(step: tuple[Any, Any, Any, Any], owned: set[int]) -> _Call:
    function, arguments, named, answer = step
    torch = require("torch", extra="torch")
    read = (_storage(one) for one in _tensors(torch, (arguments, list(named.values()))))
    writes = {_storage(one): one.untyped_storage().nbytes() for one in _tensors(torch, (answer,))}
    name = function.overloadpacket.__name__.rstrip("_")
    return _Call(name, tuple(dict.fromkeys(one for one in read if one not in owned)), writes)


def _tensors(torch: Any, values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(torch, value)


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def _layer(name: str) -> str:
    """``base_net.7`` of ``base_net.7.conv.0.weight``."""
    return ".".join(name.split(".")[:2])


def _stages(
    sizes: dict[str, int], macs: dict[str, int], outputs: dict[str, tuple[int, ...]]
) -> tuple[Stage, ...]:
    """Layers in the network's own order, neighbours of one part and one map size made one."""
    layers: dict[str, int] = {}
    for name, size in sizes.items():
        layers[_layer(name)] = layers.get(_layer(name), 0) + size
    found: list[Stage] = []
    for layer, parameters in layers.items():
        part, output = layer.split(".")[0], outputs.get(layer, ())
        before = found[-1] if found else None
        same = before is not None and before.part == part
        if before is not None and same and (not output or before.output[1:] == output[1:]):
            found[-1] = Stage(
                part,
                output or before.output,
                before.parameters + parameters,
                before.macs + macs.get(layer, 0),
            )
        else:
            found.append(Stage(part, output, parameters, macs.get(layer, 0)))
    return tuple(found)
