"""Ending an evaluation when its question is answered: ``--until 'drop < 1 AP'``.

The question is about a compressed model against its float parent. Images come in a random order,
and the answer is looked for four times, after an eighth, a quarter, half and all of them. Looking
often must not make wrong answers likelier, so each look spends a share of the 5 % that a 95 %
interval may be wrong: as much as the share of images that are new (Lan and DeMets 1983; this linear
spending is Kim and DeMets 1987). Each look's interval is that much wider than a single one, and by
Bonferroni's inequality all four hold together with 95 %, whatever the figures have in common: they
are repeated confidence intervals (Jennison and Turnbull 1989). Whoever stops may quote the last.

An interval is normal, with the standard error of the paired bootstrap. A bootstrap cannot know what
it has not seen: where a model fails on one image in a hundred, fifty images may all be fine. So two
more images count, on which everything is lost, or won, as Agresti and Coull (1998) add failures to
a proportion. What an image costs is told from its objects (`image_cost`): one that holds the only
cats costs more. Without them, rare failures and rare classes break the promise; a test shows both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.accuracy.bootstrap import Difference, verdict
from harness.accuracy.curves import Matches
from harness.errors import BadConfig

WRONG = 0.05
SHARES = (0.125, 0.25, 0.5, 1.0)
UNSEEN = 2
FIGURES = {
    "AP": "accuracy.coco_map",
    "AP50": "accuracy.coco_map50",
    "VOC07": "accuracy.voc07_map",
    "VOC12": "accuracy.voc12_map",
}
"""Names of figures in a question, and the metrics they stand for."""


class Question(NamedTuple):
    """Is the drop of ``metric`` below ``drop`` (0..1)?"""

    text: str
    metric: str
    drop: float


class Look(NamedTuple):
    """After how many images to look, and how much of `WRONG` that may spend."""

    images: int
    alpha: float


class Answer(NamedTuple):
    """What one look found: child minus parent with its repeated interval, and the answer."""

    look: Look
    change: Difference
    answer: Literal["yes", "no", "open"]


def parse(text: str) -> Question:
    """Read ``drop < 1 AP``.

    Raises:
        BadConfig: anything else.
    """
    found = re.fullmatch(r"\s*drop\s*<\s*([0-9]*\.?[0-9]+)\s*(\w+)\s*", text)
    if not found or found[2] not in FIGURES or not 0 < float(found[1]) < 100:
        raise BadConfig(
            f"--until '{text}' is no question: write for example 'drop < 1 AP', with a number of"
            f" points above 0 and below 100, and one of {', '.join(FIGURES)}"
        )
    return Question(" ".join(text.split()), FIGURES[found[2]], float(found[1]) / 100)


def looks(images: int) -> list[Look]:
    """The looks at a data set, each at more images than the one before."""
    ends = sorted({math.ceil(share * images) for share in SHARES})
    starts = [0, *ends[:-1]]
    return [
        Look(end, WRONG * (end - start) / images) for start, end in zip(starts, ends, strict=True)
    ]


class Compared(NamedTuple):
    """One figure of both models over the images so far.

    Attributes:
        parent, child: ``(1 + resamples,)``: over all images, then over each resample, drawn alike.
        cost: what losing everything in one image would cost, see `image_cost`.
    """

    parent: NDArray[np.float64]
    child: NDArray[np.float64]
    cost: float


def image_cost(classes: Sequence[Matches], precision: NDArray[np.float64]) -> float:
    """How much one image, if all in it is lost, takes from a mean over classes.

    Images that cost more weigh more: it is the sum of cubes over the sum of squares, the ratio that
    the skewness of such losses depends on.

    Args:
        precision: ``(classes,)`` average precision of each, NaN without objects.
    """
    objects = np.stack([matches.positives for matches in classes]).astype(np.float64)
    known = ~np.isnan(precision)
    share = precision[known] / objects[known].sum(axis=1) / max(1, known.sum())
    costs = share @ objects[known]
    squares = float((costs**2).sum())
    return float((costs**3).sum()) / squares if squares else 0.0


def repeated(compared: Compared, look: Look) -> Difference | None:
    """Child minus parent with the interval that ``look`` may quote; None where undefined."""
    change = compared.child - compared.parent
    drawn = change[1:][~np.isnan(change[1:])]
    if np.isnan(change[0]) or not drawn.size:
        return None
    estimate = float(change[0])
    error = math.sqrt(drawn.var() + UNSEEN * compared.cost**2)
    reach = UNSEEN * compared.cost + NormalDist().inv_cdf(1 - look.alpha / 2) * error
    low, high = estimate - float(reach), estimate + float(reach)
    return Difference(estimate, low, high, verdict(low, high))


def answer(question: Question, change: Difference | None) -> Literal["yes", "no", "open"]:
    """Whether the interval lies on one side of the question's drop."""
    if change is None:
        return "open"
    if change.low > -question.drop:
        return "yes"
    return "no" if change.high <= -question.drop else "open"


def ask(question: Question, images: int, figures: Callable[[int], Compared]) -> list[Answer]:
    """Look until the question is answered or the images are all scored; at least one look.

    Args:
        figures: the question's figure over the first n images.
    """
    found: list[Answer] = []
    for look in looks(images):
        change = repeated(figures(look.images), look)
        if change is None:
            continue
        found.append(Answer(look, change, answer(question, change)))
        if found[-1].answer != "open":
            break
    return found
