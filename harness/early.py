"""Score a compressed model only until the question about it is answered (`accuracy.stopping`).

Images come in an order drawn from a seed, not in the data set's, which may be sorted by content.
The float parent has been scored on all of them before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.accuracy import compared
from harness.accuracy.stopping import Answer, Compared, Question, ask
from harness.detections import Found, of_names
from harness.errors import ResultsError
from harness.records import Measurement
from harness.scoring import Pass, merge

METRIC = "accuracy.until"


class Ended(NamedTuple):
    """What was scored until the question was answered, and how it was."""

    question: Question
    seen: Pass
    answers: list[Answer]
    planned: int


def score_until(
    question: Question,
    images: int,
    run: Callable[[Sequence[int], bool], Pass],
    parent: Found,
    classes: int,
    seed: int,
) -> Ended:
    """Score more and more images, in an order drawn from ``seed``, until the answer is known.

    Args:
        images: how many there are.
        run: scores the images of these indices; told whether they are the first.
        parent: what the float parent found in all of them.

    Raises:
        ResultsError: it was scored on other images, or without ground truth.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(images).tolist()
    passes: list[Pass] = []
    scored = 0

    def figures(count: int) -> Compared:
        nonlocal scored
        passes.append(run(order[scored:count], not passes))
        scored = count
        found = merge(passes).found
        theirs = of_names(parent, found.names)
        if theirs is None or found.truths is None:
            raise ResultsError(
                "the float parent was not scored on the same images with ground truth, so no"
                " question about it can end this evaluation: score it again, or leave out --until"
            )
        return compared(question.metric, found.truths, theirs, found.detections, classes, seed=seed)

    answers = ask(question, images, figures)
    return Ended(question, merge(passes), answers, images)


def record(ended: Ended, seed: int) -> Measurement:
    """How many images were scored, and why no more."""
    scored = len(ended.seen.found.names)
    last = ended.answers[-1] if ended.answers else None
    answer = last.answer if last else "open"
    said = last.change.verdict if last else "the figure is undefined on these images"
    reason = {
        "yes": f"answered with yes ({said})",
        "no": f"answered with no ({said})",
        "open": f"all images were scored and the answer stays open ({said})",
    }[answer]
    conditions: dict[str, Any] = {
        "question": ended.question.text,
        "answer": answer,
        "reason": f"'{ended.question.text}' {reason} after {scored} of {ended.planned} images",
        "planned": ended.planned,
        "seed": seed,
        "looks": [
            {
                "images": one.look.images,
                "alpha": one.look.alpha,
                "change": one.change.estimate,
                "interval": [one.change.low, one.change.high],
                "answer": one.answer,
            }
            for one in ended.answers
        ],
    }
    return Measurement(metric=METRIC, value=float(scored), unit="images", conditions=conditions)


def quoted(changes: Sequence[Measurement], ended: Ended) -> list[Measurement]:
    """``changes`` with the interval that the last look may quote in place of a single look's.

    Those of the other figures keep theirs and say that the images ended when they did.
    """
    found = []
    for item in changes:
        conditions = {**item.conditions, "until": ended.question.text}
        if item.metric == f"{ended.question.metric}_change" and ended.answers:
            change = ended.answers[-1].change
            conditions |= {
                "ci95": [change.low, change.high],
                "verdict": change.verdict,
                "interval": "repeated",
            }
        found.append(
            Measurement(metric=item.metric, value=item.value, unit=item.unit, conditions=conditions)
        )
    return found
