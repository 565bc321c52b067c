"""The slim ultra-light face detector, 240 high and 320 wide, 4420 priors.

Original code: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB at dffdddd,
MIT; its checkpoint ``version-slim-320.pth`` loads under our names, one to one.
Tensors: input (n, 3, 240, 320) float32 RGB, (pixel - 127) / 128; logits (n, 4420, classes),
offsets (n, 4420, 4). The published classes are background and face.
"""

from __future__ import annotations

from torch import nn

from harness.interfaces import MODELS
from harness.records import ModelSpec
from models._mobilenet_v1 import backbone
from models._ultra_light_face import FIRST, LATER_UNITS, UNITS, make_face_spec


def _base() -> nn.Sequential:
    return backbone(FIRST, (*UNITS, *LATER_UNITS))


@MODELS.register
def slim_320_face(labels: tuple[str, ...]) -> ModelSpec:
    """Slim face detector. ``labels``: class names, background first. Raises BadConfig."""
    return make_face_spec("slim_320_face", labels, _base)
