"""Cross-layer equalization and bias absorption in a network whose batch norms are folded."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from models.recipes._clip import ChannelClip
from models.recipes._graph import Walk, layers, reader, trace

MOST_ROUNDS = 40
STILL = 1e-3
"""Scales this close to 1 end the rounds."""


class Pair(NamedTuple):
    """Two convolutions with nothing but an activation, or nothing, between them."""

    first: str
    between: str | None
    second: str


class Done(NamedTuple):
    """What `equalize` did; ``clips`` is how many ReLU6 it replaced."""

    pairs: int
    rounds: int
    clips: int


def pairs_of(traced: fx.GraphModule) -> list[Pair]:
    """The pairs along which a scale can move."""
    found, pairs = layers(traced), []
    for node, layer in found.items():
        if not isinstance(layer, nn.Conv2d):
            continue
        after, between = reader(node, found), None
        if after is not None and isinstance(found.get(after), nn.ReLU | nn.ReLU6 | ChannelClip):
            between, after = str(after.target), reader(after, found)
        if after is not None and isinstance(found.get(after), nn.Conv2d):
            pairs.append(Pair(str(node.target), between, str(after.target)))
    return pairs


@torch.no_grad()
def equalize(network: nn.Module, *, exact: bool) -> Done:
    """Scale channels in place until nothing moves.

    Args:
        exact: ReLU6 between a pair becomes a limit for each channel; else ReLU, which changes what
            the network computes.
    """
    pairs, clips = pairs_of(trace(network)), 0
    for pair in pairs:
        if pair.between and isinstance(network.get_submodule(pair.between), nn.ReLU6):
            channels = _conv(network, pair.first).out_channels
            network.set_submodule(pair.between, ChannelClip(channels, 6.0) if exact else nn.ReLU())
            clips += 1
    rounds, moved = 0, bool(pairs)
    while moved and rounds < MOST_ROUNDS:
        rounds += 1
        moved = max(_scale(network, pair) for pair in pairs) > STILL
    return Done(len(pairs), rounds, clips)


def _conv(network: nn.Module, name: str) -> nn.Conv2d:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer


def by_input(conv: nn.Conv2d) -> Tensor:
    """A view of the weights, (groups, outputs of a group, inputs of a group, height * width)."""
    return conv.weight.view(conv.groups, -1, conv.weight.shape[1], conv.weight[0, 0].numel())


def _scale(network: nn.Module, pair: Pair) -> float:
    """Equalise one pair; answers how far the farthest scale is from 1."""
    first, second = _conv(network, pair.first), _conv(network, pair.second)
    ours = first.weight.abs().amax((1, 2, 3))
    theirs = by_input(second).abs().amax((1, 3)).flatten()
    scale = (ours / theirs).sqrt()
    scale = torch.where((ours > 0) & (theirs > 0), scale, torch.ones_like(scale))
    first.weight /= scale[:, None, None, None]
    if first.bias is not None:
        first.bias /= scale
    by_input(second).mul_(scale.view(second.groups, 1, -1, 1))
    between = network.get_submodule(pair.between) if pair.between else None
    if isinstance(between, ChannelClip):
        between.upper /= scale[:, None, None]
    return float((scale - 1).abs().max())


@torch.no_grad()
def absorb(network: nn.Module, images: Tensor) -> int:
    """Move what every value of a channel exceeds on ``images`` into the next convolution's bias.

    Returns:
        In how many channels there was something.
    """
    traced = trace(network)
    pairs = {pair.first: pair for pair in pairs_of(traced) if _can_absorb(network, pair)}
    least: dict[str, Tensor] = {}

    def visit(name: str, conv: nn.Conv2d, x: Tensor) -> Tensor:
        y: Tensor = conv(x)
        if name in pairs:
            least[name] = y.amin((0, 2, 3)).clamp(min=0)
        return y

    Walk(traced, visit).run(images)
    for name, amount in least.items():
        _absorb(network, pairs[name], amount)
    return sum(int((amount > 0).sum()) for amount in least.values())


def _can_absorb(network: nn.Module, pair: Pair) -> bool:
    """Padding would add zeros where the constant belongs; ReLU6 has a limit that cannot move."""
    first, second = _conv(network, pair.first), _conv(network, pair.second)
    between = network.get_submodule(pair.between) if pair.between else None
    return (
        isinstance(between, nn.ReLU | ChannelClip)
        and first.bias is not None
        and second.bias is not None
        and type(second) is nn.Conv2d  # a subclass pads in its own way
        and second.padding == (0, 0)
    )


def _absorb(network: nn.Module, pair: Pair, amount: Tensor) -> None:
    first, second = _conv(network, pair.first), _conv(network, pair.second)
    assert first.bias is not None
    assert second.bias is not None
    between = network.get_submodule(str(pair.between))
    if isinstance(between, ChannelClip):
        amount = torch.minimum(amount, between.upper.flatten())
        between.upper -= amount[:, None, None]
    first.bias -= amount
    moved = by_input(second).sum(3) * amount.view(second.groups, 1, -1)
    second.bias += moved.sum(2).flatten()
