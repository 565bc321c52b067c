"""Building blocks shared by the detectors. All tensors are NCHW float32.

Each is an ``nn.Sequential`` whose positions are those of the published networks, because the
positions are the names in their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def conv_bn_relu6(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU6; padded so that stride 1 keeps the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def separable(
    inputs: int, outputs: int, *, kernel: int, stride: int, activation: Activation
) -> nn.Sequential:
    """Depthwise convolution, batch norm, activation, pointwise convolution; both with bias."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs),
        nn.BatchNorm2d(inputs),
        activation(),
        nn.Conv2d(inputs, outputs, 1),
    )


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (MobileNetV2, Sandler et al. 2018, section 3.3).

    The residual is added where the shape stays. Without expansion (ratio 1) the first
    convolution is left out.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: float) -> None:
        super().__init__()
        hidden = round(inputs * expansion)
        expand = [] if expansion == 1 else [*conv_bn_relu6(inputs, hidden, kernel=1, stride=1)]
        self.conv = nn.Sequential(
            *expand,
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
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
