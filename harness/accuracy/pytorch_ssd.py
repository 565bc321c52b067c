"""Mean average precision as the evaluator of qfgaohao/pytorch-ssd computes it by default.

The figures in its README are this, so they are compared with this and not with the devkit's. It is
VOC 2007 (see `voc`) but for five habits:

- an object ends one pixel before the devkit's box does: both of its corners are moved by 1, and
  sides are plain differences;
- 1e-5 square pixels are added to every union;
- a detection has to overlap by **more** than the threshold of 0.5;
- the eleven recalls are floats, 0.1 apart: 3 of 10 found does not reach the level 0.3, which is
  0.30000000000000004 there (nor do 6 of 10 and 7 of 10);
- it knows no crowds: they are ordinary objects.

Two of its outcomes have no counterpart: a class without an object stops it, and a class whose best
detection lies on a difficult object has a precision of 0 / 0. Here the class stands outside the
mean, and the detection counts neither way. Detections of equal score stand in an order of their own
there (the sort is not stable); here in that of the images.

To reproduce a published figure, decode by the policy ``pytorch-ssd`` as well: every detection above
0.01 counts, however many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.accuracy.curves import Curve, Floats, Matches, sum_of_steps
from harness.accuracy.voc import voc_matches
from harness.interfaces import Detections, Truth

EPSILON = 1e-5
ABOVE_HALF = float(np.nextafter(0.5, 1.0))
LEVELS = np.arange(0.0, 1.1, 0.1)


def pytorch_ssd_matches(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int
) -> list[Matches]:
    """`Matches` of every class but the background.

    Raises:
        BadInput: as `harness.accuracy.voc.voc_matches`.
    """
    shorter = np.array([0, 0, 1, 1], np.float32)
    own = [
        truth._replace(boxes=truth.boxes - shorter, crowd=np.zeros_like(truth.crowd))
        for truth in truths
    ]
    return voc_matches(own, detections, classes, ABOVE_HALF, EPSILON)


def eleven_floats(curve: Curve) -> Floats:
    """Mean of the precision at the `LEVELS` of recall, compared as floats."""
    levels = np.searchsorted(LEVELS, curve.found / curve.positives, side="right")
    return sum_of_steps(levels, curve.precision) / len(LEVELS)
