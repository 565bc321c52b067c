"""The MultiBox loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.training.loss import Answers, Targets, hard_negatives, multibox


def logits_of(probabilities: list[list[list[float]]]) -> Tensor:
    return torch.tensor(probabilities).log()


def test_by_hand() -> None:
    logits = logits_of(
        [
            [
                [0.2, 0.7, 0.1],  # matched to class 1
                [0.9, 0.05, 0.05],  # easy background
                [0.3, 0.3, 0.4],  # hard background
                [0.6, 0.2, 0.2],  # background in between
            ]
        ]
    )
    labels = torch.tensor([[1, 0, 0, 0]])
    offsets = torch.zeros(1, 4, 4)
    offsets[0, 0] = torch.tensor([0.5, 0.0, 2.0, 0.0])
    offsets[0, 1] = 100.0  # background: its box must not count
    loss = multibox(Answers(logits, offsets), Targets(labels, torch.zeros(1, 4, 4)), negatives=2)
    assert float(loss.classes) == pytest.approx(-math.log(0.7) - math.log(0.3) - math.log(0.6))
    assert float(loss.boxes) == pytest.approx(0.5 * 0.5**2 + (2.0 - 0.5))
    assert float(loss.total) == pytest.approx(float(loss.classes) + float(loss.boxes))


def test_normalised_by_matched_priors_of_the_batch() -> None:
    logits = logits_of([[[0.5, 0.5]] * 4])
    labels = torch.tensor([[1, 1, 0, 0]])
    zeros = torch.zeros(1, 4, 4)
    loss = multibox(Answers(logits, zeros), Targets(labels, zeros), negatives=1)
    assert float(loss.classes) == pytest.approx(4 * math.log(2) / 2)


def test_negatives_are_mined_per_image() -> None:
    background = torch.tensor([[5.0, 1.0, 2.0, 3.0], [9.0, 8.0, 7.0, 6.0]])
    matched = torch.tensor([[True, False, False, False], [False, False, False, True]])
    taken = hard_negatives(background, matched, 2)
    assert taken.tolist() == [[False, False, True, True], [True, True, False, False]]


def test_more_negatives_wanted_than_there_are() -> None:
    matched = torch.tensor([[True, True, False]])
    taken = hard_negatives(torch.tensor([[1.0, 2.0, 3.0]]), matched, 3)
    assert taken.tolist() == [[False, False, True]]


def test_image_without_objects_still_teaches_background() -> None:
    logits = logits_of([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.7, 0.3]]])
    zeros = torch.zeros(1, 4, 4)
    told = Targets(torch.zeros(1, 4, dtype=torch.int64), zeros)
    loss = multibox(Answers(logits, zeros), told, negatives=3)
    expected = -math.log(0.4) - math.log(0.7) - math.log(0.8)
    assert float(loss.classes) == pytest.approx(expected)
    assert float(loss.boxes) == 0


def test_gradient_reaches_matched_and_mined_priors_only() -> None:
    logits = torch.zeros(1, 5, 3, requires_grad=True)
    offsets = torch.ones(1, 5, 4, requires_grad=True)
    labels = torch.tensor([[2, 0, 0, 0, 0]])
    told = Targets(labels, torch.zeros(1, 5, 4))
    multibox(Answers(logits, offsets), told, negatives=2).total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert logits.grad is not None
    assert offsets.grad is not None
    assert int(logits.grad.abs().sum(2).gt(0).sum()) == 3
    assert offsets.grad.abs().sum(2).gt(0).tolist() == [[True, False, False, False, False]]
