"""Adaptive rounding of one convolution after the other, from second moments of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recipes._graph import trace, walk_beside
from models.recipes._rounding import Grid, convolve, grid_of, rows_of
from models.recipes._scheme import Scheme

ZETA, GAMMA = 1.1, -0.1
"""How far the rectified sigmoid is stretched (paper, equation 23)."""
WARM = 0.2
"""Part of the iterations without the term that pushes to 0 or 1."""
SHARP, SOFT = 2.0, 20.0
"""That term's exponent falls from soft to sharp."""
LAMBDA = 0.01
RATE = 0.03
MOST_PASSES = 10
"""Over all weights, of the descent that follows."""


class LayerError(NamedTuple):
    """Mean squared error of a convolution's outputs, with our rounding and with the nearest."""

    name: str
    ours: float
    nearest: float


class Moments(NamedTuple):
    """Second moments of the inputs of a convolution's kernels, by group: (groups, k, k).

    Attributes:
        after: of the inputs that the rounded layers before give, ``E[y yᵀ]``.
        cross: of those with the float network's, ``E[y xᵀ]``.
        before: of the float network's, ``E[x xᵀ]``.
    """

    after: Tensor
    cross: Tensor
    before: Tensor


def round_all(
    network: nn.Module, scheme: Scheme, images: Tensor, iterations: int
) -> list[LayerError]:
    """Round the weights of every convolution in place; answers its errors."""
    done: dict[str, Tensor] = {}
    errors = []

    def visit(name: str, conv: nn.Conv2d, x: Tensor) -> Tensor:
        before, after = x.chunk(2)
        if name not in done:
            moments = moments_of(conv, before, after)
            rows = rows_of(conv.weight.detach(), scheme)
            done[name], ours, nearest = adapt(
                conv.weight.detach(), grid_of(rows, scheme), moments, iterations
            )
            errors.append(LayerError(name, ours, nearest))
        return torch.cat([conv(before), convolve(conv, done[name], after)])

    walk_beside(trace(network), images, visit)
    with torch.no_grad():
        for name, weight in done.items():
            network.get_submodule(name).weight.copy_(weight)  # type: ignore[operator]  # a convolution's
    return errors


def moments_of(conv: nn.Conv2d, before: Tensor, after: Tensor) -> Moments:
    """Second moments of what the kernels see, image by image."""
    size = conv.weight[0].numel()
    total = [torch.zeros(conv.groups, size, size) for _ in Moments._fields]
    count = 0
    for x, y in zip(before[:, None], after[:, None], strict=True):
        one, two = (_patches(conv, image) for image in (x, y))
        count += one.shape[2]
        for sink, (left, right) in zip(total, ((two, two), (two, one), (one, one)), strict=True):
            sink += left @ right.transpose(1, 2)
    return Moments(*(sink / count for sink in total))


def _patches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """What each kernel sees of one image, (groups, k, places)."""
    if conv.kernel_size == (1, 1):
        seen = x[:, :, :: conv.stride[0], :: conv.stride[1]].flatten(2)
    else:
        seen = functional.unfold(_padded(conv, x), conv.kernel_size, conv.dilation, 0, conv.stride)
    return seen.reshape(conv.groups, -1, seen.shape[2])


def _padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if type(conv) is nn.Conv2d and not isinstance(conv.padding, str):
        high, wide = conv.padding
        return functional.pad(x, (wide, wide, high, high))
    # A convolution that pads in its own way: as much as makes its number of outputs, more at the
    # end.
    grown = []
    for size, out, stride, kernel, step in zip(
        x.shape[2:], conv(x).shape[2:], conv.stride, conv.kernel_size, conv.dilation, strict=True
    ):
        total = max((out - 1) * stride + (kernel - 1) * step + 1 - size, 0)
        grown.append((total // 2, total - total // 2))
    return functional.pad(x, (*grown[1], *grown[0]))


def adapt(
    weight: Tensor, grid: Grid, moments: Moments, iterations: int
) -> tuple[Tensor, float, float]:
    """Weights on the grid, and the mean squared error of the outputs with them and with nearest.

    Args:
        weight: (outputs, …).
        grid: its rows are the weight's outputs, or all of it.
    """
    shape = (len(moments.after), -1, weight[0].numel())  # groups, outputs of a group, k
    scale, zero = (values.expand(len(weight), 1).reshape(shape[0], -1, 1) for values in grid[:2])
    grid = grid._replace(scale=scale, zero=zero)
    target = weight.reshape(shape)
    place = grid.place(target)
    floor, nearest = place.floor(), grid.nearest(target)
    pull = target @ moments.cross.transpose(1, 2)
    rest = ((target @ moments.before) * target).sum(2)

    def errors(values: Tensor) -> Tensor:
        """By output channel, (groups, outputs)."""
        return (values @ moments.after * values).sum(2) - 2 * (pull * values).sum(2) + rest

    theirs = errors(nearest)
    with torch.enable_grad():
        up = _relaxed(
            place - floor,
            lambda share: errors(grid.at(floor + share)) / theirs.clamp(min=1e-20),
            iterations,
        )
    # What lies at an end of the grid stays there: it decides the range that an exporter finds.
    ends = (place <= grid.least + 0.5) | (place >= grid.most - 0.5)
    rounded = torch.where(ends, nearest, grid.at(floor + up))
    rounded = _descended(rounded, grid, floor, ends, moments.after, pull)
    rounded = grid.nearest(rounded)  # sums of changes are off by their own rounding
    ours = errors(rounded)
    better = (ours < theirs)[:, :, None]
    return (
        torch.where(better, rounded, nearest).reshape(weight.shape),
        float(torch.minimum(ours, theirs).clamp(min=0).mean()),
        float(theirs.clamp(min=0).mean()),
    )


def _relaxed(fraction: Tensor, cost: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
    """1 where rounding up costs less, by the relaxation of the paper."""
    free = torch.logit((fraction - GAMMA) / (ZETA - GAMMA)).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=RATE)
    for step in range(iterations):
        share = (torch.sigmoid(free) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
        loss = cost(share).sum() * fraction.shape[2]
        late = (step / iterations - WARM) / (1 - WARM)
        if late > 0:
            exponent = SHARP + (SOFT - SHARP) * (1 - late)
            loss = loss + LAMBDA * (1 - (2 * share - 1).abs().pow(exponent)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    return (torch.sigmoid(free.detach()) >= 0.5).float()


def _descended(
    values: Tensor, grid: Grid, floor: Tensor, fixed: Tensor, after: Tensor, pull: Tensor
) -> Tensor:
    """Single weights are rounded the other way, in turn, as long as that lowers the error."""
    slope = 2 * (values @ after - pull)
    down, up = grid.at(floor), grid.at(floor + 1)
    for _ in range(MOST_PASSES):
        before = values
        values = values.clone()
        for k in range(values.shape[2]):
            other = down[..., k] + up[..., k] - values[..., k]
            change = other - values[..., k]
            gain = change * slope[..., k] + change.square() * after[:, k, k, None]
            change = torch.where((gain < 0) & ~fixed[..., k], change, 0.0)
            values[..., k] += change
            slope += 2 * change[..., None] * after[:, None, k]
        if values.equal(before):
            break
    return values
