"""`fine_tune` trains a network that is in memory, and a teacher can stand beside the labels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness import recipes
from harness.cache import sha256_file
from harness.datasets.shapes import LABELS
from harness.errors import BadConfig, BadInput
from harness.interfaces import MODELS
from harness.recipe_interface import TrainingImages
from harness.records import ModelSpec
from models._checkpoint import save_weights
from models.training import Distill, Stage, Teacher, TrainOptions, fine_tune
from models.training.distill import distilled, open_teacher
from models.training.loss import Answers, Targets, multibox
from tests.painted import Painted

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_recipe_teaches_a_pruned_network_and_keeps_its_zeros(
    painted: str, tiny_ssd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    spec = MODELS.get(tiny_ssd.stem)(Painted.labels)
    saved = tmp_path / "weights.safetensors"
    save_weights(spec.build(), saved)
    saved.with_suffix(".json").write_text(json.dumps({"labels": list(spec.labels)}))
    chain = recipes.parse(f"prune:0.5+distill:tiny_ssd,weights={saved},images=8,batch=8")
    supplies = recipes.Supplies(training=TrainingImages(f"{painted}:train", None, 0.5))
    network, said = chain.apply(spec, spec.build(), supplies)
    assert said[-1].endswith("taught by tiny_ssd")
    assert float((network.base_net[1][3].weight == 0).float().mean()) == pytest.approx(
        0.5, abs=0.01
    )
    assert f"weights_sha256={sha256_file(saved)[:12]}" in str(chain)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("distill", "has no teacher"),
        ("distill:nobody", "unknown model 'nobody'"),
        ("distill:mb2_ssd_lite,share=2", "share 2"),
        ("distill:mb2_ssd_lite,weights_sha256=abc", "not what they were"),
    ],
)
def test_a_teacher_that_is_none(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        recipes.parse(text)


def test_teachers_that_answer_otherwise_are_refused(tmp_path: Path) -> None:
    spec = MODELS.get("etinynet_ssd_lite")(LABELS, width=0.35)
    with pytest.raises(BadConfig, match="mb2_ssd_lite answers for 3000 priors of 300x300 pixels"):
        open_teacher(Distill(teacher="mb2_ssd_lite"), spec, "cpu")
    few = MODELS.get("mb2_ssd_lite")(LABELS[:3])
    with pytest.raises(BadConfig, match=r"knows the classes disc, .* the student learns disc, r"):
        open_teacher(Distill(teacher="mb2_ssd_lite"), few, "cpu")


def test_a_teacher_sees_the_images_as_it_was_taught_to(tiny_spec: ModelSpec) -> None:
    pixels = torch.rand(1, 3, 4, 4) * 255
    seen = tiny_spec.image
    other = msgspec.structs.replace(
        seen, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channel_order="bgr"
    )
    mean, std = torch.tensor(other.mean)[:, None, None], torch.tensor(other.std)[:, None, None]
    heard: list[torch.Tensor] = []

    def listen(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heard.append(images)
        return images, images

    Teacher(listen, other).answers((pixels - 127) / 128, seen)  # type: ignore[arg-type]  # answers are not looked at
    torch.testing.assert_close(heard[0], ((pixels - mean) / std).flip(1), atol=1e-4, rtol=1e-4)


def test_the_teachers_part_of_the_loss_by_hand() -> None:
    """One matched prior and one background, two classes, temperature 2."""
    said = Answers(torch.tensor([[[0.0, 2.0], [2.0, 0.0]]]), torch.tensor([[[1.0] * 4, [9.0] * 4]]))
    taught = Answers(
        torch.tensor([[[0.0, 4.0], [4.0, 0.0]]]), torch.tensor([[[0.5] * 4, [0.0] * 4]])
    )
    told = Targets(torch.tensor([[1, 0]]), torch.zeros(1, 2, 4))
    how = Distill(teacher="x", share=0.25, boxes=0.1, temperature=2.0)
    loss = distilled(said, told, taught, how, negatives=3, sigmoid=False)
    hard = 2 * math.log1p(math.exp(-2))
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))  # teacher and student, softened
    soft = 2 * 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert float(loss.classes) == pytest.approx(0.75 * hard + 0.25 * soft, rel=1e-5)
    # smooth L1 of four errors of 1, and their squares, since the teacher is nearer
    assert float(loss.boxes) == pytest.approx(4 * 0.5 + 0.1 * 4)
    nearer = taught._replace(offsets=torch.full((1, 2, 4), 2.0))
    kept = distilled(said, told, nearer, how, negatives=3, sigmoid=False)
    assert float(kept.boxes) == pytest.approx(4 * 0.5)


def test_sigmoid_scores_have_a_loss_for_each_class() -> None:
    said = Answers(torch.tensor([[[1.0, 3.0], [2.0, -1.0], [9.0, -9.0]]]), torch.zeros(1, 3, 4))
    told = Targets(torch.tensor([[1, 0, 0]]), torch.zeros(1, 3, 4))
    loss = multibox(said, told, negatives=1, sigmoid=True)

    def wrong(logit: float, wanted: float) -> float:
        return math.log1p(math.exp(-logit if wanted else logit))

    hand = wrong(1, 0) + wrong(3, 1) + wrong(2, 1) + wrong(-1, 0)
    assert float(loss.classes) == pytest.approx(hand, rel=1e-5)


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
