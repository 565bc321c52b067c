"""`fine_tune` trains a network that is in memory, and a teacher can stand beside the labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.errors import BadConfig
from harness.records import ModelSpec
from models.training import Distill, Stage, Teacher, TrainOptions, fine_tune
from tests.painted import paint


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads than a tiny network can use cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> str:
    return paint(tmp_path_factory.mktemp("painted"))


def options(painted: str, folder: Path, **changes: Any) -> TrainOptions:
    plain: dict[str, Any] = {
        "model": "tiny",
        "data": f"{painted}:train",
        "stages": (Stage(size=32, images=320),),
        "batch": 16,
        "learning_rate": 1e-2,
        "average": 0.5,
        "cache": str(folder / "cache"),
        "workers": 0,
        "evaluate": 0,
    }
    return TrainOptions(**{**plain, **changes})


def test_it_learns_in_place_and_writes_nothing(
    painted: str, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    network = tiny_spec.build()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    done = fine_tune(network, tiny_spec, options(painted, tmp_path))
    losses = [row["loss"] for row in done.log]
    assert len(losses) == 20
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert not network.training
    assert not torch.equal(before["stem.0.weight"], network.state_dict()["stem.0.weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_masks_that_are_put_back_after_each_step_stay(
    painted: str, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    network = tiny_spec.build()
    weight = network.first[1][0].weight
    mask = (torch.rand_like(weight) < 0.5).float()
    weight.data.mul_(mask)
    seen: list[int] = []

    def keep(step: int) -> None:
        seen.append(step)
        weight.data.mul_(mask)

    fine_tune(
        network,
        tiny_spec,
        options(painted, tmp_path, stages=(Stage(size=32, images=80),)),
        after_step=keep,
    )
    assert seen == [1, 2, 3, 4, 5]
    assert torch.equal(network.first[1][0].weight != 0, mask != 0)


def test_validated_weights_are_the_best_ones(
    painted: str, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    chosen = options(
        painted, tmp_path, validate_every=80, evaluate=8, evaluate_data=f"{painted}:val"
    )
    done = fine_tune(tiny_spec.build(), tiny_spec, chosen)
    assert [each.images for each in done.validations] == [80, 160, 240, 320]
    assert all(0 <= each.map <= 1 and each.loss > 0 for each in done.validations)


def test_a_student_comes_closer_to_its_teacher(
    painted: str, tiny_spec: ModelSpec, tiny_images: NDArray[np.float32], tmp_path: Path
) -> None:
    teacher = tiny_spec.build()
    fine_tune(teacher, tiny_spec, options(painted, tmp_path))
    image = torch.from_numpy(tiny_images)
    apart = {}
    for share in (0.0, 1.0):
        student = tiny_spec.build()
        noise = torch.Generator().manual_seed(1)
        for weight in student.parameters():
            weight.data.add_(torch.randn(weight.shape, generator=noise), alpha=0.1)
        how = Distill(teacher="given", share=share, boxes=0.0)
        chosen = options(painted, tmp_path, distill=how)
        fine_tune(student, tiny_spec, chosen, teacher=Teacher(teacher, tiny_spec.image))
        with torch.no_grad():
            apart[share] = float((student(image)[0] - teacher(image)[0]).square().mean())
    assert apart[1.0] < 0.9 * apart[0.0]


def test_a_network_that_is_no_ssd_trains_at_its_own_size_only(
    painted: str, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    stages = (Stage(size=32, images=16, close_up=True), Stage(size=32, images=16))
    with pytest.raises(BadConfig, match="give one stage of size 32"):
        fine_tune(tiny_spec.build(), tiny_spec, options(painted, tmp_path, stages=stages))
    with pytest.raises(BadConfig, match="end with a stage of size 32"):
        fine_tune(
            tiny_spec.build(),
            tiny_spec,
            options(painted, tmp_path, stages=(Stage(size=64, images=16),)),
        )
    with pytest.raises(BadConfig, match="freeze=all-but-heads leaves nothing"):
        fine_tune(tiny_spec.build(), tiny_spec, options(painted, tmp_path, freeze="all-but-heads"))
