"""TensorFlow Lite exports: each operator of torch, how it is expressed, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ExportFailed
from harness.records import ModelSpec

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
tensorflow = pytest.importorskip("tensorflow", reason="the converter is TensorFlow's")
pytest.importorskip("ai_edge_litert.interpreter", reason="the helpers import it")

from torch import Tensor, nn  # noqa: E402  # after the skip
from torch.nn import functional  # noqa: E402  # after the skip

from exporters._tf_graph import translate  # noqa: E402  # after the skip
from exporters._tf_trace import trace  # noqa: E402  # after the skip
from tests.test_exporters_tflite import expect, make  # noqa: E402  # after the skip


class Pair(nn.Module):  # type: ignore[misc]  # importorskip makes nn Any
    """Answers twice, because a detector has two outputs."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.answer(image)
        return answer, answer + 1.0


def norm(channels: int, *, low: float) -> Any:
    """A batch norm with statistics and a scale between ``low`` and 2."""
    made = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(3)
    for values, bounds in (
        (made.weight.data, (low, 2.0)),
        (made.bias.data, (-1.0, 1.0)),
        (made.running_mean, (-1.0, 1.0)),
        (made.running_var, (0.5, 2.0)),
    ):
        values.uniform_(*bounds, generator=generator)
    return made


def conv(inputs: int, outputs: int, kernel: int, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(outputs)
        return nn.Conv2d(inputs, outputs, kernel, **options)


class Scaled(nn.Module):  # type: ignore[misc]  # importorskip makes nn Any
    """A learnt scale per channel and squeeze-excite: constants and broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * functional.hardsigmoid(x.mean((2, 3), keepdim=True)) - 0.5


def shared_in_place(x: Tensor) -> Tensor:
    """A tensor is read again after it was changed in place."""
    y = x * 1.5
    return functional.relu6(y, inplace=True) + y * 2


OPERATORS: Mapping[str, Callable[[], Any]] = {
    "conv": lambda: conv(3, 4, 3),
    "conv without bias": lambda: conv(3, 4, 3, bias=False),
    "conv symmetric stride 2": lambda: conv(3, 4, 3, stride=2, padding=1),
    "conv 5x3": lambda: conv(3, 4, (5, 3), padding=(2, 1)),
    "conv stride 3": lambda: conv(3, 4, 2, stride=3),
    "conv dilated": lambda: conv(3, 4, 3, dilation=2, padding=2),
    "conv grouped": lambda: nn.Sequential(conv(3, 4, 1), conv(4, 6, 3, groups=2)),
    "conv 'same'": lambda: conv(3, 4, (5, 3), padding="same"),
    "conv 'valid'": lambda: conv(3, 4, 3, padding="valid"),
    "depthwise": lambda: conv(3, 3, 3, groups=3, padding=1, stride=2),
    "depthwise times 2": lambda: conv(3, 6, 3, groups=3),
    "depthwise dilated": lambda: conv(3, 3, 3, groups=3, padding=2, dilation=2),
    "conv + norm": lambda: nn.Sequential(conv(3, 4, 3), norm(4, low=-2.0)),
    "conv without bias + norm": lambda: nn.Sequential(conv(3, 4, 3, bias=False), norm(4, low=0.1)),
    "conv + norm + norm": lambda: nn.Sequential(conv(3, 4, 3), norm(4, low=0.5), norm(4, low=0.1)),
    "conv + relu + positive norm": lambda: nn.Sequential(
        conv(3, 4, 3), nn.ReLU(inplace=True), norm(4, low=0.1)
    ),
    "conv + relu + negative norm": lambda: nn.Sequential(
        conv(3, 4, 3), nn.ReLU(), norm(4, low=-2.0)
    ),
    "conv + relu6 + norm": lambda: nn.Sequential(conv(3, 4, 3), nn.ReLU6(), norm(4, low=0.1)),
    "norm alone": lambda: norm(3, low=-2.0),
    "norm without scale": lambda: nn.Sequential(
        conv(3, 4, 1), nn.BatchNorm2d(4, affine=False).eval()
    ),
    "max 2": lambda: nn.MaxPool2d(2),
    "max 3 stride 2 ceil": lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "max 3 stride 1 same": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "max 3 stride 2": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "max 5 stride 3 ceil": lambda: nn.MaxPool2d(5, stride=3, padding=1, ceil_mode=True),
    "adaptive mean": lambda: nn.AdaptiveAvgPool2d(1),
    "mean, axes dropped": lambda: lambda x: x.mean((2, 3)),
    "relu": lambda: nn.ReLU(),
    "relu6": lambda: nn.ReLU6(),
    "relu6 in place, then read": lambda: shared_in_place,
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.25),
    "clamp": lambda: lambda x: x.clamp(-0.5, 0.5),
    "hardswish": lambda: nn.Hardswish(),
    "hardsigmoid": lambda: nn.Hardsigmoid(),
    "sigmoid": lambda: nn.Sigmoid(),
    "arithmetic": lambda: lambda x: (x + x * 2 - 1) / (x * x + 3),
    "scaled": Scaled,
    "zeros around": lambda: lambda x: functional.pad(x, (1, 2, 0, 3)),
    "zeros around, then conv": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 4, 3)),
    "zeros around, then padded conv": lambda: nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 4, 3, stride=2, padding=1)
    ),
    "join channels": lambda: lambda x: torch.cat([x, x * 2], dim=1),
    "join rows, last axis from the end": lambda: lambda x: torch.cat([x, x + 1.0], dim=-2),
    "flatten in torch's order": lambda: lambda x: x.flatten(1),
    "reshape, permute back": lambda: (
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).reshape(1, 3, -1)
    ),
    "squeeze": lambda: lambda x: x.mean((2, 3), keepdim=True).squeeze(3).squeeze(2).unsqueeze(1),
    "dropout": lambda: nn.Dropout(0.5).eval(),
}


@pytest.mark.parametrize("size", [(1, 3, 12, 15), (1, 3, 9, 8)], ids=["12x15", "9x8"])
@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_computes_what_torch_does(name: str, size: tuple[int, int, int, int]) -> None:
    network = Pair(OPERATORS[name]()).eval()
    image = np.random.default_rng(5).normal(0, 1, size).astype(np.float32)
    expected = expect(network, image)
    nhwc = tensorflow.constant(image.transpose(0, 2, 3, 1))
    got = translate(tensorflow, trace(network, size), nhwc)
    for head, answer in zip(expected, got, strict=True):
        np.testing.assert_allclose(answer.numpy(), head, rtol=1e-4, atol=1e-5)


REFUSED: Mapping[str, tuple[Callable[[], Any], str]] = {
    "unknown operator": (lambda: nn.Softplus(), r"aten\.softplus\.default.*no TensorFlow Lite"),
    "max far outside": (lambda: nn.MaxPool2d(5, 5, ceil_mode=True), "reach too far"),
    "norm without statistics": (
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        "statistics of the batch",
    ),
    "dilated max": (lambda: nn.MaxPool2d(2, dilation=2), "dilated maximum"),
    "adaptive mean to 2x2": (lambda: nn.AdaptiveAvgPool2d(2), r"only \(1, 1\)"),
    "reflected padding": (lambda: nn.ReflectionPad2d(1), "pad"),
    "ones around": (lambda: lambda x: functional.pad(x, (1, 1, 1, 1), value=1.0), "only zeros"),
    "clamp with one bound": (lambda: lambda x: x.clamp(min=0.5), "one bound"),
    "weighted add": (lambda: lambda x: torch.add(x, x, alpha=2), "alpha = 2"),
    "floor division": (lambda: lambda x: torch.div(x, x, rounding_mode="floor"), "rounding mode"),
    "in place on a view": (lambda: lambda x: (x * 1).view(1, -1).relu_(), "views"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(
    name: str, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    module, reason = REFUSED[name]
    with pytest.raises(ExportFailed, match=reason) as caught:
        make("tflite_float", tiny_spec, tmp_path, network=Pair(module()).eval())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_network_in_training_mode_is_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"network\.eval\(\)"):
        make("tflite_float", tiny_spec, tmp_path, network=tiny_spec.build().train())


def test_a_network_with_another_number_of_outputs_is_refused(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    with pytest.raises(ExportFailed, match="1 inputs to 1 outputs"):
        make("tflite_float", tiny_spec, tmp_path, network=nn.ReLU().eval())


def test_a_network_that_torch_cannot_trace_is_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    branching = Pair(lambda x: x if x.sum() > 0 else -x).eval()
    with pytest.raises(ExportFailed, match=r"torch\.export cannot trace"):
        make("tflite_float", tiny_spec, tmp_path, network=branching)


def lowered(network: Any, spec: ModelSpec, folder: Path) -> Counter[str]:
    made = make("tflite_float", spec, folder, network=Pair(network).eval())
    return Counter(operator.name for operator in made.operators)


def test_padding_like_tensorflows_needs_no_operator(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    """Zeros after the last row and column of an even image are TensorFlow's SAME at stride 2."""
    network = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 4, 3, stride=2))
    assert "PAD" not in lowered(network, tiny_spec, tmp_path)


def test_positive_norm_behind_relu_costs_one_addition(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    network = nn.Sequential(conv(3, 4, 3), nn.ReLU(), norm(4, low=0.1), conv(4, 4, 3))
    counted = lowered(network, tiny_spec, tmp_path)
    assert counted["MUL"] == 0
    assert counted["ADD"] == 2  # the other is Pair's


def test_hardswish_becomes_one_operator(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    network = nn.Sequential(conv(3, 4, 3), nn.Hardswish())
    assert lowered(network, tiny_spec, tmp_path)["HARD_SWISH"] == 1
