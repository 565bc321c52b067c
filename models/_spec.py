"""From a network and the facts of its family to a `ModelSpec`, and what families share.

``PYTORCH_SSD`` is https://github.com/qfgaohao/pytorch-ssd at 7a839cb (MIT), ``TINYML_DET``
https://github.com/Chadlikouider/TinyML_Det at 911ecfc (no licence given: its architectures are
our own writing). Checkpoints of both load under our names, one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import nn

from harness.errors import BadConfig
from harness.records import Decoding, ImageSpec, ModelSpec, Scalar, Source
from models._priors import Level, make_priors, ssd_level

PYTORCH_SSD = "https://github.com/qfgaohao/pytorch-ssd"
TINYML_DET = "https://github.com/Chadlikouider/TinyML_Det"

IMAGE_300 = ImageSpec(height=300, width=300, mean=(127.0,) * 3, std=(128.0,) * 3)
"""What the MobileNets of pytorch-ssd see."""

IMAGE_256 = ImageSpec(
    height=256,
    width=256,
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)
"""What the models of TinyML_Det see, by ImageNet's mean and standard deviation."""


def levels_300(cells: Sequence[int] = (19, 10, 5, 3, 2, 1)) -> tuple[Level, ...]:
    """The priors of pytorch-ssd's MobileNets and SqueezeNet on maps of ``cells`` cells."""
    specs = (
        (16, 60, 105),
        (32, 105, 150),
        (64, 150, 195),
        (100, 195, 240),
        (150, 240, 285),
        (300, 285, 330),
    )
    return tuple(ssd_level(side, *spec, (2, 3)) for side, spec in zip(cells, specs, strict=True))


def levels_256(*first: tuple[int, float]) -> tuple[Level, ...]:
    """The priors of TinyML_Det; ``first`` are the cells and strides of the backbone's maps."""
    sides = (26, 67, 108, 149, 190, 231, 256)
    maps = (*first, (8, 32), (4, 64), (2, 128), (1, 256))
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    each = zip(maps, pairwise(sides), ratios, strict=True)
    return tuple(ssd_level(*cells, *ends, shape) for cells, ends, shape in each)


def make_spec(
    name: str,
    labels: Sequence[str],
    build: Callable[[], nn.Module],
    *,
    image: ImageSpec,
    levels: Sequence[Level],
    source: Source,
    options: Mapping[str, Scalar] | None = None,
    decoding: Decoding | None = None,
    clamp: bool = True,
) -> ModelSpec:
    """The spec of a detector whose priors are those of ``levels``.

    Raises:
        BadConfig: labels that cannot be a detector's.
    """
    check_labels(name, labels)
    return ModelSpec(
        name=name,
        options=dict(options or {}),
        build=lambda: build().eval(),
        image=image,
        priors=make_priors((image.height, image.width), levels, clamp=clamp),
        decoding=decoding or Decoding(),
        labels=tuple(labels),
        source=source,
    )


def check_labels(model: str, labels: Sequence[str]) -> None:
    """Refuse labels that cannot be a detector's.

    Raises:
        BadConfig: fewer than two labels, or one given twice.
    """
    if len(labels) < 2:
        raise BadConfig(
            f"{model} got {len(labels)} labels: give the background and at least one class"
        )
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if list(labels).count(label) > 1)
        raise BadConfig(f"{model} got the label '{twice}' twice: give each class once")
