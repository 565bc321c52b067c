"""Convolution with TensorFlow's padding "SAME": as many cells as strides begun, the odd zero last.

Source: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SameConv2d(nn.Conv2d):
    """`nn.Conv2d` that pads by its input's size; ``padding`` is not used. NCHW."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        top, bottom = _zeros(height, self.kernel_size[0], self.stride[0], self.dilation[0])
        left, right = _zeros(width, self.kernel_size[1], self.stride[1], self.dilation[1])
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


def _zeros(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """How many zeros go before and after an axis."""
    cells = -(-size // stride)
    total = max((cells - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
