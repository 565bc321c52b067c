"""A training does what its options say, can be killed, and goes on as if it had not been."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.datasets.shapes import LABELS
from harness.errors import BadCheckpoint, BadConfig
from harness.interfaces import MODELS
from harness.records import encode
from harness.registry import ROOT
from models._checkpoint import load_weights
from models.training import TrainingDiverged, TrainOptions, describe, from_settings, train
from models.training.augment import Augmentation
from models.training.loop import steps, steps_to_do
from models.training.loss import multibox
from models.training.options import Pretrain, Stage
from models.training.rates import learning_rate
from models.training.settings import command
from models.training.shipping import finish, publish, read_manifest
from models.training.state import read


def options(folder: Path, **changes: Any) -> TrainOptions:
    """A training of a few seconds: 64 pixels, then one step at the model's own size."""
    plain: dict[str, Any] = {
        "model": "etinynet_ssd_lite",
        "model_options": {"width": 0.35},
        "data": "shapes:train",
        "data_images": 8,
        "stages": (Stage(size=64, images=20), Stage(size=256, images=4)),
        "batch": 4,
        "out": str(folder / "run"),
        "cache": str(folder / "cache"),
        "workers": 0,
        "save_seconds": 1e-6,
        "evaluate": 0,
        "settle": 0,
    }
    return TrainOptions(**{**plain, **changes})


def log_of(chosen: TrainOptions) -> list[dict[str, float]]:
    """The rows of ``log.csv`` without the speed, which differs from run to run."""
    with (Path(chosen.out) / "log.csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        assert row.pop("images_per_s") > 0
    return rows


def state_of(chosen: TrainOptions) -> dict[str, Any]:
    return read(Path(chosen.out) / "last.pt")


def check_same_end(one: TrainOptions, other: TrainOptions) -> None:
    """Two trainings logged the same and ended with the same weights, to the last bit."""
    assert log_of(one) == log_of(other)
    first, second = state_of(one), state_of(other)
    assert first["step"] == second["step"]
    for part in ("network", "average"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), (part, key)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """An uninterrupted training, scored on four images."""
    chosen = options(tmp_path_factory.mktemp("finished"), evaluate=4)
    assert train(chosen) == Path(chosen.out) / "weights.safetensors"
    return chosen


def test_log_has_every_step(finished: TrainOptions) -> None:
    rows = log_of(finished)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["images"] for row in rows] == [4, 8, 12, 16, 20, 24]
    assert [row["size"] for row in rows] == [64] * 5 + [256]
    for row in rows:
        assert row["loss"] == pytest.approx(row["classes"] + row["boxes"], rel=1e-4)


def test_weights_and_manifest(finished: TrainOptions) -> None:
    path = Path(finished.out) / "weights.safetensors"
    manifest = read_manifest(path)
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.labels == LABELS
    assert (manifest.images_seen, manifest.data_images) == (24, 8)
    assert manifest.options == finished
    assert manifest.commands == (command(finished),)
    assert manifest.score is not None
    assert manifest.score.images == 4
    assert 0 <= (manifest.score.value or 0) <= 1
    network = MODELS.get(manifest.model)(LABELS, **manifest.model_options).build()
    load_weights(network, path)
    for key, value in state_of(finished)["average"].items():
        stored = value.half().float() if value.ndim > 1 else value
        assert torch.equal(network.state_dict()[key], stored), key


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_training_equals_uninterrupted(
    finished: TrainOptions, tmp_path: Path, workers: int
) -> None:
    chosen = options(tmp_path, workers=workers)
    for images in (8, 12):
        train(options(tmp_path, workers=workers, stop_after=images))
        assert state_of(chosen)["step"] == images // 4
    train(chosen)
    check_same_end(finished, chosen)


@pytest.mark.slow
def test_killed_training_equals_uninterrupted(finished: TrainOptions, tmp_path: Path) -> None:
    chosen = options(tmp_path)
    request = tmp_path / "options.json"
    request.write_bytes(encode(chosen))
    program = (
        "import msgspec, pathlib, sys\n"
        "from models.training import TrainOptions, train\n"
        "if __name__ == '__main__':\n"
        "    text = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "    train(msgspec.json.decode(text, type=TrainOptions))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    child = subprocess.Popen(
        [sys.executable, str(script), str(request)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    state = Path(chosen.out) / "last.pt"
    end = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < end:
        assert child.poll() is None, "the training ended before it could be killed"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=30)
    assert state_of(chosen)["step"] >= 1
    train(chosen)
    check_same_end(finished, chosen)


@pytest.mark.slow
def test_without_resume_it_starts_again(finished: TrainOptions, tmp_path: Path) -> None:
    train(options(tmp_path, seed=5))
    chosen = options(tmp_path, resume=False)
    train(chosen)
    check_same_end(finished, chosen)


def test_other_options_are_not_resumed(tmp_path: Path) -> None:
    train(options(tmp_path, stop_after=4))
    with pytest.raises(BadConfig, match=r"trained with learning_rate 0\.002, not 0\.1"):
        train(options(tmp_path, learning_rate=0.1))


def test_damaged_state_is_named(tmp_path: Path) -> None:
    chosen = options(tmp_path, stop_after=4)
    train(chosen)
    state = Path(chosen.out) / "last.pt"
    state.write_bytes(state.read_bytes()[:5000])
    with pytest.raises(BadCheckpoint, match=r"last\.pt cannot be read .* delete it"):
        train(chosen)


def test_diverging_training_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(tmp_path)
    calls = []

    def breaks_at_the_third(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        loss = multibox(*args, **kwargs)
        return loss._replace(boxes=loss.boxes * (math.nan if len(calls) == 3 else 1))

    monkeypatch.setattr("models.training.loop.multibox", breaks_at_the_third)
    with pytest.raises(
        TrainingDiverged, match=r"loss became nan at step 3: .*last\.pt.* shapes-v1-train-0"
    ):
        train(chosen)
    assert state_of(chosen)["step"] == 2
    monkeypatch.undo()
    train(chosen)
    assert len(log_of(chosen)) == 6


@pytest.mark.slow
def test_interrupted_training_with_pretraining_and_close_ups(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "pretrain": Pretrain(images=8, size=64, batch=4),
        "stages": (Stage(size=64, images=8, close_up=True), Stage(size=256, images=4)),
    }
    whole, parts = options(tmp_path / "a", **changes), options(tmp_path / "b", **changes)
    train(whole)
    for images in (0, 4, None):
        train(options(tmp_path / "b", stop_after=images, **changes))
    check_same_end(whole, parts)
    plain = options(tmp_path / "c", stages=changes["stages"], stop_after=4)
    train(plain)
    assert log_of(plain)[0]["loss"] != log_of(whole)[0]["loss"]


@pytest.mark.slow
def test_it_overfits_a_few_images(tmp_path: Path) -> None:
    chosen = options(
        tmp_path,
        data_images=16,
        stages=(Stage(size=96, images=1000), Stage(size=256, images=4)),
        augmentation=Augmentation(
            mirror=0, crop=0, expand=0, brightness=0, contrast=0, saturation=0, hue=0
        ),
        learning_rate=5e-3,
        save_seconds=60.0,
    )
    train(chosen)
    losses = [row["loss"] for row in log_of(chosen) if row["size"] == 96]
    assert sum(losses[-20:]) / 20 < 0.5 * sum(losses[:20]) / 20


def test_starting_from_weights(finished: TrainOptions, tmp_path: Path) -> None:
    start = Path(finished.out) / "weights.safetensors"
    chosen = options(tmp_path, start_from=str(start), stop_after=4)
    train(chosen)
    manifest = read_manifest(Path(chosen.out) / "weights.safetensors")
    assert manifest.commands == (command(finished), command(chosen))
    assert manifest.images_seen == 24 + 4
    assert log_of(chosen)[0]["loss"] != log_of(finished)[0]["loss"]


def test_publish_names_the_copy_and_refuses_a_mismatch(
    finished: TrainOptions, tmp_path: Path
) -> None:
    weights = Path(finished.out) / "weights.safetensors"
    copy = publish(weights, tmp_path)
    assert copy.name == "etinynet_ssd_lite-0.35-shapes.safetensors"
    assert copy.read_bytes() == weights.read_bytes()
    assert read_manifest(copy) == read_manifest(weights)
    copy.write_bytes(b"other")
    with pytest.raises(BadCheckpoint, match="not what its manifest says"):
        publish(copy, tmp_path)
    with pytest.raises(BadCheckpoint, match="no manifest"):
        publish(tmp_path / "none.safetensors", tmp_path)


def test_finishing_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"no training state last\.pt: train first"):
        finish(options(tmp_path))


def test_last_stage_must_have_the_models_size(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="end with a stage of size 256"):
        train(options(tmp_path, stages=(Stage(size=64, images=4),)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 1}, "batch is 1: give at least 2"),
        ({"threads": 0}, "threads is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"stages": ()}, "no stages"),
        ({"pretrain": Pretrain(images=0)}, "pretrain.images is 0"),
        ({"stages": (Stage(size=16, images=4),)}, "stage 16:4 is impossible"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        options(tmp_path, **changes)


def test_steps_follow_the_stages() -> None:
    chosen = options(Path(), stages=(Stage(size=64, images=9), Stage(size=256, images=4)))
    assert [(step.stage.size, step.first) for step in steps(chosen)] == [
        (64, 0),
        (64, 4),
        (64, 8),
        (256, 12),
    ]
    short = options(Path(), stages=chosen.stages, stop_after=11)
    assert [step.number for step in steps_to_do(short, done=1)] == [1]


def test_learning_rate_warms_up_and_falls() -> None:
    for done, expected in ((0.05, 0.05), (0.1, 0.1), (0.55, 0.1 * (0.01 + 0.99 / 2)), (1, 0.001)):
        assert learning_rate(0.1, done, warmup=0.1, final=0.01) == pytest.approx(expected)
    assert learning_rate(0.1, 0.0, warmup=0.1, final=0.01) > 0


def test_settings_become_options() -> None:
    chosen = from_settings(
        "etinynet_ssd_lite",
        {"width": 0.5},
        "runs/1",
        [
            "stages=64:100,96c:20,256:50",
            "learning_rate=0.01",
            "bf16=true",
            "augmentation.crop=0",
            "pretrain.images=64",
        ],
    )
    assert chosen.stages == (
        Stage(size=64, images=100),
        Stage(size=96, images=20, close_up=True),
        Stage(size=256, images=50),
    )
    assert chosen.pretrain == Pretrain(images=64)
    assert (chosen.learning_rate, chosen.bf16, chosen.augmentation.crop) == (0.01, True, 0)
    assert chosen.augmentation.mirror == 0.5
    usual = from_settings("mb2_ssd_lite", {}, "x", [])
    assert [(stage.size, stage.close_up) for stage in usual.stages] == [(160, True), (300, False)]
    assert usual.pretrain is not None


def test_command_line_round_trip() -> None:
    chosen = options(
        Path("runs"),
        learning_rate=0.0005,
        optimizer="sgd",
        start_from="runs/0/weights.safetensors",
        pretrain=Pretrain(images=640, size=48),
        stages=(Stage(size=96, images=20, close_up=True), Stage(size=256, images=4)),
        augmentation=Augmentation(crop=0.25),
        stop_after=8,
        cache=".cache/training",
        save_seconds=60.0,
    )
    words = command(chosen).split()
    assert words[:5] == ["detbench", "train", "etinynet_ssd_lite:width=0.35", "-o", "runs/run"]
    settings = words[6::2]
    again = from_settings(chosen.model, chosen.model_options, chosen.out, settings)
    assert json.loads(encode(again)) == json.loads(encode(chosen))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("learning_rat=1", "did you mean 'learning_rate'"),
        ("batch", "not key=value"),
        ("out=x", "not key=value"),
        ("stages=64", "not size:images,size:images"),
        ("batch=many", "do not fit"),
        ("optimizer=adam", "do not fit"),
        ("augmentation.zoom=1", "did you mean|known:"),
    ],
)
def test_wrong_settings_are_refused(setting: str, says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        from_settings("mb2_ssd_lite", {}, "x", [setting])


def test_every_option_is_described() -> None:
    known = describe()
    assert known["batch"] == "16"
    assert {"stages", "augmentation.crop", "pretrain.images", "threads"} <= set(known)
    assert not {"model", "out"} & set(known)
    for name in TrainOptions.__struct_fields__:
        assert f"{name}" in (TrainOptions.__doc__ or ""), f"{name} is not documented"
