"""What a training starts from, the rates of its parts, and the order of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import BadCheckpoint
from harness.interfaces import MODELS
from models.training import Stage, TrainOptions
from models.training.order import Order, repeat_factors
from models.training.parts import make_optimizer, part_of, set_training
from models.training.rates import factor
from models.training.starting import start
from models.training.state import Progress, Validation
from tests.painted import Painted


@pytest.mark.parametrize("kind", ["plain", "features", "renamed"])
def test_a_backbone_is_found_by_names_or_by_order(
    tiny_ssd: Path, tmp_path: Path, kind: str
) -> None:
    spec = MODELS.get("tiny_ssd")(Painted.labels)
    given = spec.build().base_net.state_dict()
    names = {"plain": "{key}", "features": "features.{key}", "renamed": "trunk.layer{place}.{leaf}"}
    saved = {
        names[kind].format(key=key, place=place, leaf=key.rpartition(".")[2]): value + 1
        for place, (key, value) in enumerate(given.items())
        if "num_batches" not in key
    }
    saved["classifier.weight"] = torch.zeros(10, 256)
    torch.save(saved, tmp_path / "backbone.pth")
    network = spec.build()
    options = TrainOptions(
        model="tiny_ssd",
        stages=(Stage(size=64, images=8),),
        backbone=str(tmp_path / "backbone.pth"),
    )
    assert start(network, spec, options)[0] == "base net starts from backbone.pth"
    for key, value in network.base_net.state_dict().items():
        assert "num_batches" in key or torch.equal(value, given[key] + 1), key
    saved.pop(next(iter(saved)))
    torch.save(saved, tmp_path / "backbone.pth")
    with pytest.raises(BadCheckpoint, match="does not hold the base net of tiny_ssd"):
        start(network, spec, options)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "does not exist, and no published weights"),
        ("rfb_320_face", "are those of rfb_320_face, as a detector"),
        ("mb2_imagenet", "backbone takes the base net of tiny_ssd"),
    ],
)
def test_a_backbone_that_is_none(tiny_ssd: Path, name: str, says: str) -> None:
    spec = MODELS.get("tiny_ssd")(Painted.labels)
    options = TrainOptions(model="tiny_ssd", stages=(Stage(size=64, images=8),), backbone=name)
    with pytest.raises(BadCheckpoint, match=says):
        start(spec.build(), spec, options)


def test_each_part_has_its_own_rate(tiny_ssd: Path) -> None:
    network = MODELS.get("tiny_ssd")(Painted.labels).build()
    options = TrainOptions(
        model="tiny_ssd",
        stages=(Stage(size=64, images=8),),
        learning_rate=0.1,
        base_learning_rate=0.001,
        extras_learning_rate=0.01,
        optimizer="sgd",
    )
    set_training(network, "none")
    rates = {
        id(p): group["peak"]
        for group in make_optimizer(network, options).param_groups
        for p in group["params"]
    }
    wanted = {"base": 0.001, "extras": 0.01, "heads": 0.1}
    assert {n: rates[id(p)] for n, p in network.named_parameters()} == {
        n: wanted[part_of(n)] for n, _ in network.named_parameters()
    }


def test_steps_fall_at_their_milestones() -> None:
    options = TrainOptions(
        model="x",
        stages=(Stage(size=64, images=100),),
        schedule="steps",
        milestones=(40, 80),
        warmup=0.1,
    )
    shown = (5, 10, 39, 40, 79, 80)
    found = [factor(options, done=images / 100, shown=images) for images in shown]
    assert found == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])


def test_rare_classes_are_shown_more_often() -> None:
    # by hand: class 1 is in 4 of 4 images, class 2 in 1: sqrt(0.5 / 0.25)
    labels = [np.array(each) for each in ([1, 1], [1], [1, 2], [1])]
    factors = repeat_factors(labels, 0.5)
    np.testing.assert_allclose(factors, [1, 1, 2**0.5, 1])
    order = Order(4, seed=0, factors=factors)
    shown = np.bincount([order.picture(number) for number in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(shown, factors / factors.sum(), atol=0.01)
    assert repeat_factors([np.array([], np.int64), np.array([1])], 0.1).tolist() == [1, 1]


def test_progress_counts_patience_from_the_best() -> None:
    def after(*maps: float) -> Progress:
        found = tuple(Validation(images=i, loss=1, map=m) for i, m in enumerate(maps))
        return Progress(validations=found)

    assert not after().out_of_patience(1)
    assert not after(0.1, 0.2).out_of_patience(1)
    assert after(0.2, 0.2).out_of_patience(1)
    assert after(0.1, 0.3, 0.2, 0.3).out_of_patience(2)
    assert not after(0.1, 0.3, 0.2).out_of_patience(2)
    assert not after(0.3, 0.2).out_of_patience(0)
