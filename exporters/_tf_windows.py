"""Operators that slide a window over an image, in TensorFlow: convolution, maximum, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exporters._tf_values import NHWC, Axis, Call, Value, lowers, padded, pair, stored


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Axis:
    """What TensorFlow's SAME puts around an axis: the odd zero goes to the end.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    span = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
    total = max(span - size, 0)
    return total // 2, total - total // 2


@lowers("conv2d")
def _conv2d(
    call: Call,
    x: Value,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Value:
    tf, image = call.tf, stored(call.tf, x, NHWC)
    strides, dilations = pair(stride), pair(dilation)
    mode, image = _padding_mode(call, image, weight.shape[2:], strides, padding, dilations)
    channels = int(image.tensor.shape[3])
    if groups == channels and groups > 1:
        kernel = weight.reshape(channels, -1, *weight.shape[2:]).transpose(2, 3, 0, 1)
        result = tf.nn.depthwise_conv2d(
            image.tensor, tf.constant(kernel), [1, *strides, 1], mode, dilations=dilations
        )
    else:
        kernel = weight.transpose(2, 3, 1, 0)
        result = tf.nn.conv2d(
            image.tensor, tf.constant(kernel), [1, *strides, 1], mode, dilations=dilations
        )
    if bias is not None:
        result = tf.nn.bias_add(result, tf.constant(bias))
    return Value(tensor=result, order=NHWC)


def _padding_mode(
    call: Call,
    image: Value,
    kernel: Sequence[int],
    strides: tuple[int, int],
    padding: int | str | Sequence[int],
    dilations: tuple[int, int],
) -> tuple[str, Value]:
    """SAME where the amounts agree with TensorFlow's, else explicit zeros and VALID."""
    if padding == "same":  # torch allows it at stride 1 only, where it means what TensorFlow means
        return "SAME", padded(call.tf, image)
    sizes = (int(image.tensor.shape[1]), int(image.tensor.shape[2]))
    same = tuple(map(same_padding, sizes, kernel, strides, dilations))
    amounts = (0, 0) if isinstance(padding, str) else pair(padding)
    wanted = tuple(
        (before + amount, after + amount)
        for (before, after), amount in zip(image.padding, amounts, strict=True)
    )
    if not any(map(any, wanted)):
        return "VALID", image
    if wanted == same:
        return "SAME", replace(image, padding=((0, 0), (0, 0)))
    return "VALID", padded(call.tf, replace(image, padding=(wanted[0], wanted[1])))


@lowers("constant_pad_nd")
def _constant_pad(call: Call, x: Value, pads: Sequence[int], value: float | None = None) -> Value:
    if value or len(pads) != 4 or min(pads) < 0 or len(x.order) != 4:
        raise call.refuse("only zeros around the rows and columns of an image")
    left, right, top, bottom = pads
    return replace(stored(call.tf, x, NHWC), padding=((top, bottom), (left, right)))


@lowers("pad")
def _pad(
    call: Call, x: Value, pads: Sequence[int], mode: str = "constant", value: float | None = None
) -> Value:
    if mode != "constant":
        raise call.refuse(f"padding mode '{mode}'")
    return _constant_pad(call, x, pads, value)


@lowers("max_pool2d")
def _max_pool2d(
    call: Call,
    x: Value,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Value:
    if pair(dilation) != (1, 1):
        raise call.refuse("a dilated maximum")
    image = stored(call.tf, x, NHWC)
    kernel = pair(kernel_size)
    strides = pair(stride) if stride else kernel
    sizes = (int(image.tensor.shape[1]), int(image.tensor.shape[2]))
    amounts = pair(padding)
    over: tuple[int, ...] = (0, 0)
    if ceil_mode:
        ends = [size + 2 * amount for size, amount in zip(sizes, amounts, strict=True)]
        over = tuple(map(_overhang, ends, kernel, strides, call.shape[2:]))
    wanted = tuple((amount, amount + extra) for amount, extra in zip(amounts, over, strict=True))
    tensor, mode = image.tensor, "VALID"
    if wanted == tuple(map(same_padding, sizes, kernel, strides)):
        mode = "SAME"
    elif any(map(any, wanted)):
        if any(2 * max(amount) > window for amount, window in zip(wanted, kernel, strict=True)):
            raise call.refuse(f"a maximum whose windows reach too far outside, by {wanted}")
        # Up to half a window, a window that sees mirrored values sees their originals too, so
        # they cannot win; zeros could, and the lowest float would ruin int8 ranges.
        tensor = call.tf.pad(tensor, [(0, 0), *wanted, (0, 0)], mode="SYMMETRIC")
    return Value(tensor=call.tf.nn.max_pool2d(tensor, kernel, strides, mode), order=NHWC)


def _overhang(end: int, window: int, step: int, result: int) -> int:
    """How far the last of ``result`` windows reaches over the end of an axis (ceil mode)."""
    return max((result - 1) * step + window - end, 0)
