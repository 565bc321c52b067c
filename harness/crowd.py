"""What decoding and suppression cost when there is much to find: the crowd scene.

The pictures that take turns while timing hold a few objects. A street full of people has thousands
of candidates, and the time of suppression grows with them. Outputs are made up with a known number
of candidates, in the artifact's own tensors (a quantized one is dequantized first, as in use), and
decoded as the artifact's policy says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.decode import class_scores
from harness.interfaces import RawOutputs
from harness.opened import Opened
from harness.records import Measurement, TensorSpec
from harness.stats import percentile
from harness.timing import Tier, time_calls

CANDIDATES = (10, 30, 100, 300, 1000, 3000, 10000)
TIER = Tier(name="crowd", samples=12, seconds=0, warmup_calls=2, warmup_seconds=0)
INPUTS = 4
FAR = -12.0
"""Logit of what is no candidate."""
SIDE = 300
"""Side of the picture that the boxes are scaled to, in pixels."""


def curve(opened: Opened, seed: int) -> list[Measurement]:
    """``latency.crowd_<candidates>``, up to all priors times all classes.

    Empty for artifacts that answer something else than logits and offsets: their suppression is
    the runtime's own or needs no decoding.
    """
    if opened.artifact.output_kind != "heads":
        return []
    most = len(opened.priors) * (len(opened.artifact.labels) - 1)
    counts = [count for count in CANDIDATES if count < most]
    rng = np.random.default_rng(seed)
    return [_point(opened, count, rng) for count in counts]


def _point(opened: Opened, count: int, rng: np.random.Generator) -> Measurement:
    heads = [crowded(opened, count, rng) for _ in range(INPUTS)]
    found = time_calls(lambda slot: opened.detect(heads[slot], [(SIDE, SIDE)]), TIER, inputs=INPUTS)
    samples = found.per_call_ns
    return Measurement(
        metric=f"latency.crowd_{count}",
        value=percentile(samples, 50),
        unit="ns",
        samples=samples,
        conditions={"candidates": candidates(opened, heads[0]), "statistic": "p50"},
    )


def crowded(opened: Opened, count: int, rng: np.random.Generator) -> RawOutputs:
    """One image's outputs in which ``count`` pairs of prior and class stand out.

    They are drawn without repetition; boxes are the priors, moved by up to a tenth of their side.
    """
    logits_spec, offsets_spec = opened.artifact.outputs
    priors, classes = len(opened.priors), len(opened.artifact.labels)
    logits = np.full((1, priors, classes), FAR, np.float32)
    logits[..., 0] = 0.0
    picked = rng.choice(priors * (classes - 1), count, replace=False)
    rows, columns = np.divmod(picked, classes - 1)
    logits[0, rows, columns + 1] = rng.uniform(1.0, 3.0, count)
    offsets = rng.uniform(-1.0, 1.0, (1, priors, 4)).astype(np.float32)
    return RawOutputs(_as_answered(logits, logits_spec), _as_answered(offsets, offsets_spec))


def candidates(opened: Opened, heads: RawOutputs) -> int:
    """How many scores of an image lie above the policy's threshold."""
    rules, spec = opened.artifact.decoding, opened.artifact.outputs[0]
    real = heads.logits[0].astype(np.float32)
    if spec.scale is not None:
        real = (real - np.float32(spec.zero_point or 0)) * np.float32(spec.scale)
    scores = class_scores(np.ascontiguousarray(real.T), rules.score)
    return int((scores > rules.score_threshold).sum())


def _as_answered(values: NDArray[np.float32], spec: TensorSpec) -> NDArray[Any]:
    """Real values in the dtype of an output tensor."""
    if spec.scale is None:
        return values.astype(spec.dtype)
    limits = np.iinfo(spec.dtype)
    steps = np.rint(values / spec.scale) + (spec.zero_point or 0)
    quantized: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return quantized
