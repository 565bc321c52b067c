"""EtinyNet SSDLite, 256 x 256, 6132 priors, for microcontrollers.

Paper: EtinyNet (Xu et al. 2022, https://doi.org/10.1609/aaai.v36i4.20387).
Original code: https://github.com/Chadlikouider/TinyML_Det at 911ecfc, no licence given: this is
our own writing of the architecture; its state dicts load under our names, one to one.
Tensors: input (n, 3, 256, 256) float32 RGB with ImageNet's mean and standard deviation; logits
(n, 6132, classes), offsets (n, 6132, 4).
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import BadConfig
from harness.interfaces import MODELS
from harness.records import ModelSpec, Source
from models._heads import lite_extra, lite_heads
from models._layers import separable
from models._spec import IMAGE_256, TINYML_DET, levels_256, make_spec
from models._ssd import Ssd

WIDTHS = (1.0, 0.75, 0.5, 0.35)

_BLOCKS = (
    *((32, 1, False),) * 4,
    (128, 2, False),
    *((128, 1, False),) * 3,
    (192, 2, True),
    *((192, 1, True),) * 2,
    (256, 2, True),
    (256, 1, True),
    (512, 1, True),
)
"""Channels, stride and density of the linear depthwise blocks (paper, table 2)."""

TAPS = (11, 14, 18)
"""Number of layers of ``base_net`` before each of its feature maps."""

_EXTRA_CHANNELS = 256

LEVELS = levels_256((32, 8), (16, 16))


class LinearDepthwiseBlock(nn.Module):
    """Depthwise 3x3, pointwise, depthwise 3x3, without activation after the first (paper, fig. 2).

    The dense form adds its input, through a small branch where the shape changes, and the
    first half's output to the second half's. A block that is not dense still owns the branch
    where its shape changes: it is never run, but the published state dicts hold its weights.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, dense: bool) -> None:
        super().__init__()
        self.out1 = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
        )
        self.out2 = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
        )
        self.dense = dense
        self.same_shape = stride == 1 and inputs == outputs
        if not self.same_shape:
            self.identity_connection = separable(
                inputs, outputs, kernel=1, stride=stride, activation=nn.ReLU
            )

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.out1(x)
        if self.dense and self.same_shape:
            first = first + x
        second: Tensor = self.out2(first)
        if self.dense:
            # Two sums in the published order: floating-point addition does not commute with it.
            second = second + x + first if self.same_shape else second + first + self._branch(x)
        return second

    def _branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.identity_connection(x)
        return y


def backbone(width: float) -> tuple[nn.Sequential, list[int]]:
    """The backbone and the channels of its feature maps."""
    channels = int(32 * width)
    layers: list[nn.Module] = [
        nn.Conv2d(3, channels, 3, 2, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(channels),
        nn.MaxPool2d((2, 2), (2, 2)),
    ]
    taps = []
    for base, stride, dense in _BLOCKS:
        outputs = int(base * width)
        layers.append(LinearDepthwiseBlock(channels, outputs, stride=stride, dense=dense))
        channels = outputs
        if len(layers) in TAPS:
            taps.append(channels)
    return nn.Sequential(*layers), taps


def _build(classes: int, width: float) -> Ssd:
    """EtinyNet whose last three stages feed the heads, with three extra maps."""
    base, channels = backbone(width)
    extras = []
    for _ in range(len(LEVELS) - len(channels)):
        half = _EXTRA_CHANNELS // 2
        extras.append(lite_extra(channels[-1], half, _EXTRA_CHANNELS, norm=True))
        channels.append(_EXTRA_CHANNELS)
    heads = lite_heads(classes, (256, 256), LEVELS, channels)
    return Ssd(base, extras, heads, TAPS)


@MODELS.register
def etinynet_ssd_lite(labels: tuple[str, ...], *, width: float = 1.0) -> ModelSpec:
    """EtinyNet SSDLite.

    Args:
        labels: class names, background first.
        width: one of 1.0, 0.75, 0.5, 0.35; multiplies the channels of the backbone.

    Raises:
        BadConfig: another width, or labels that cannot be a detector's.
    """
    if width not in WIDTHS:
        known = ", ".join(map(str, WIDTHS))
        raise BadConfig(f"etinynet_ssd_lite got width {width}: give one of {known}")
    return make_spec(
        "etinynet_ssd_lite",
        labels,
        lambda: _build(len(labels), width),
        image=IMAGE_256,
        levels=LEVELS,
        options={"width": float(width)},
        source=Source(
            paper="https://doi.org/10.1609/aaai.v36i4.20387",
            repository=TINYML_DET,
            licence="none given",
        ),
    )
