"""Building blocks shared by the detectors. All tensors are NCHW float32.

Each is an ``nn.Sequential`` whose positions are those of the published networks, because the
positions are the names in their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

Activation = Callable[[], nn.Module]

relu: Activation = partial(nn.ReLU, inplace=True)
relu6: Activation = partial(nn.ReLU6, inplace=True)


@dataclass(frozen=True, kw_only=True)
class Style:
    """What families of detectors do differently in otherwise equal blocks.

    Attributes:
        activation: made anew for every place.
        convolution: `nn.Conv2d`, or a subclass that pads in another way.
        epsilon: of batch norm.
    """

    activation: Activation = relu6
    convolution: type[nn.Conv2d] = nn.Conv2d
    epsilon: float = 1e-5

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Batch norm over ``channels``."""
        return nn.BatchNorm2d(channels, eps=self.epsilon)


RELU = Style(activation=relu)
RELU6 = Style(activation=relu6)


def conv_bn(
    inputs: int, outputs: int, style: Style, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, activation; padded so that stride 1 keeps the size."""
    return nn.Sequential(
        style.convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        style.norm(outputs),
        style.activation(),
    )


def depthwise_unit(inputs: int, outputs: int, style: Style, *, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3 and pointwise, each with batch norm and activation (MobileNet, table 1)."""
    return nn.Sequential(
        *conv_bn(inputs, inputs, style, kernel=3, stride=stride, groups=inputs),
        *conv_bn(inputs, outputs, style, kernel=1),
    )


def separable(
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    activation: Activation,
    stride: int = 1,
    padding: int | None = None,
    norm: bool = True,
) -> nn.Sequential:
    """Depthwise convolution, batch norm (or none), activation, pointwise; both with bias.

    Without ``padding`` it is padded so that stride 1 keeps the size.
    """
    padding = kernel // 2 if padding is None else padding
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs),
        *([nn.BatchNorm2d(inputs)] if norm else []),
        activation(),
        nn.Conv2d(inputs, outputs, 1),
    )


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (MobileNetV2, Sandler et al. 2018, section 3.3).

    The residual is added where the shape stays. Without expansion (ratio 1) the first
    convolution is left out.
    """

    def __init__(
        self, inputs: int, outputs: int, style: Style = RELU6, *, stride: int, expansion: float
    ) -> None:
        super().__init__()
        hidden = round(inputs * expansion)
        expand = [] if expansion == 1 else [*conv_bn(inputs, hidden, style, kernel=1)]
        self.conv = nn.Sequential(
            *expand,
            *conv_bn(hidden, hidden, style, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            style.norm(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def expand(self, x: Tensor) -> Tensor:
        """The expanded activations, before the depthwise convolution."""
        return _run(list(self.conv)[:3], x)

    def project(self, x: Tensor) -> Tensor:
        """What `expand` is followed by, without the residual."""
        return _run(list(self.conv)[3:], x)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _run(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
