"""Any data set trains, what does not fit is refused before any work, and the best weights win."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from harness.cli import main
from harness.datasets.writers import write_coco
from harness.errors import BadCheckpoint, BadConfig
from harness.interfaces import MODELS
from harness.registry import ROOT
from models._checkpoint import load_weights
from models.training import Stage, TrainOptions, train
from models.training.batches import Input, open_feed
from models.training.parts import part_of
from models.training.scoring import HeldOut
from models.training.settle import LEAST_VARIANCE, recount, settle
from models.training.shipping import read_manifest
from models.training.starting import start
from models.training.state import read
from models.training.store import open_images
from tests.painted import Painted, paint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base(painted: str, tiny_ssd: Path, tmp_path: Path) -> dict[str, Any]:
    """A training of two steps on painted squares."""
    return {
        "model": "tiny_ssd",
        "data": f"{painted}:train",
        "evaluate_data": f"{painted}:val",
        "stages": (Stage(size=64, images=16),),
        "batch": 8,
        "out": str(tmp_path / "run"),
        "cache": str(tmp_path / "cache"),
        "workers": 0,
        "save_seconds": 1e-6,
    }


@pytest.fixture(scope="module")
def trained(painted: str, tiny_ssd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a training on painted squares, with their manifest."""
    folder = tmp_path_factory.mktemp("trained")
    return train(
        TrainOptions(
            model="tiny_ssd",
            data=f"{painted}:train",
            evaluate_data=f"{painted}:val",
            stages=(Stage(size=64, images=16),),
            batch=8,
            out=str(folder / "run"),
            cache=str(folder / "cache"),
            workers=0,
        )
    )


def log_of(out: str) -> list[float]:
    with (Path(out) / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_manifest_says_what_was_learned(trained: Path) -> None:
    manifest = read_manifest(trained)
    assert manifest.labels == Painted.labels
    assert manifest.start == ("all weights start random",)
    assert manifest.score is not None
    assert manifest.score.data == "voc:val"
    assert set(manifest.score.per_class) == {"square", "star"}
    assert manifest.score.loss is not None
    assert manifest.best is None


def test_coco_files_on_disk_and_in_memory_teach_the_same(
    base: dict[str, Any], tmp_path: Path
) -> None:
    path = write_coco(Painted("train", 24), tmp_path / "coco")
    chosen = {**base, "data": f"coco:{path}", "evaluate": 0}
    train(TrainOptions(**chosen))
    train(TrainOptions(**{**chosen, "images_in": "files", "out": str(tmp_path / "files")}))
    assert log_of(base["out"]) == log_of(str(tmp_path / "files"))
    assert read_manifest(Path(base["out"]) / "weights.safetensors").labels == Painted.labels


def test_images_that_do_not_fit_into_memory_are_refused(
    painted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.store._SHARE", 0.0)
    with pytest.raises(BadConfig, match=r"24 images of voc:train take .* set images_in=files"):
        open_images(f"{painted}:train", None, tmp_path, workers=0)


def test_a_labels_file_orders_the_classes(base: dict[str, Any], tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("background\nmoon\nstar\nsquare\n")
    train(TrainOptions(**base, labels=str(labels)))
    manifest = read_manifest(Path(base["out"]) / "weights.safetensors")
    assert manifest.labels == ("background", "moon", "star", "square")
    assert (Path(base["out"]) / "labels.txt").read_text() == labels.read_text()
    assert manifest.score is not None
    assert manifest.score.per_class["moon"] is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"evaluate_data": None}, r"nothing is held out .* --val, or set evaluate=0"),
        ({"evaluate_data": "shapes:val"}, r"shapes:val has class 'disc', which the model does not"),
        ({"labels": "background\nsquare\n"}, r"voc:.* has class 'star', which the model does not"),
        ({"labels": "background\n"}, r"names 1 classes, expected background and at least one"),
        ({"stages": (Stage(size=96, images=8),)}, r"tiny_ssd sees 64 pixels: end with"),
        ({"device": "gpu"}, r"device 'gpu' cannot be used .*: give cpu, or cuda"),
        ({"distill": {"teacher": "tiny_ssd"}}, r"no weights are shipped for tiny_ssd"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    base: dict[str, Any], tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    from models.training import Distill

    if "labels" in changes:
        path = tmp_path / "labels.txt"
        path.write_text(changes["labels"])
        changes = {"labels": str(path)}
    if "distill" in changes:
        changes = {"distill": Distill(**changes["distill"])}
    with pytest.raises((BadConfig, BadCheckpoint), match=says):
        train(TrainOptions(**{**base, **changes}))
    assert not Path(base["out"]).exists()
    assert not Path(base["cache"]).exists()


def test_images_that_are_scored_are_not_trained_on(base: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=r"24 images of .*:train are also trained on, .*train-000"):
        train(TrainOptions(**{**base, "evaluate_data": base["data"]}))


def test_an_empty_split_is_refused(base: dict[str, Any], tmp_path: Path) -> None:
    root = Path(paint(tmp_path).partition(":")[2])
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n")
    with pytest.raises(BadConfig, match=r"train\.txt lists no image"):
        train(TrainOptions(**{**base, "data": f"voc:{root}:train"}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"new_heads": True}, "new_heads is for a start_from checkpoint"),
        ({"backbone": "a", "start_from": "b"}, "a training starts from one"),
        ({"schedule": "steps"}, r"schedule is steps with milestones \[\]"),
        ({"schedule": "steps", "milestones": (9, 4)}, r"milestones \[9, 4\] do not rise"),
        ({"patience": 2}, "patience counts validations"),
        ({"validate_every": 8, "evaluate": 0}, "validate_every needs evaluate"),
        ({"base_learning_rate": 0.0}, "base_learning_rate is 0.0"),
        ({"balance": 1.0}, "balance is 1.0"),
    ],
)
def test_options_that_contradict_each_other(
    base: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadConfig, match=says):
        TrainOptions(**{**base, **changes})


def test_every_option_that_differs_is_named_on_resume(base: dict[str, Any]) -> None:
    train(TrainOptions(**base, stop_after=8))
    with pytest.raises(BadConfig, match=r"with freeze 'none', not 'base'; with seed 0, not 1: "):
        train(TrainOptions(**base, seed=1, freeze="base"))


def test_other_classes_need_new_heads(trained: Path) -> None:
    options = {"model": "tiny_ssd", "stages": (Stage(size=64, images=8),)}
    spec = MODELS.get("tiny_ssd")(("background", "a", "b", "c"))
    network = spec.build()
    heads = {k: v.clone() for k, v in network.state_dict().items() if k.startswith("classif")}
    with pytest.raises(BadConfig, match=r"knows the classes square, star, .* a, b, c: set new_he"):
        start(network, spec, TrainOptions(**options, start_from=str(trained)))
    said = start(network, spec, TrainOptions(**options, start_from=str(trained), new_heads=True))
    assert said == (
        "base net, extra layers and box heads start from weights.safetensors, which knew square,"
        " star",
        "class heads start random",
    )
    other = TrainOptions(**options, start_from=str(trained), new_heads=True, match_iou=0.4)
    assert start(spec.build(), spec, other)[-1].startswith(
        "weights.safetensors learned boxes from an IoU of 0.5, this training matches from 0.4: set"
    )
    given = MODELS.get("tiny_ssd")(Painted.labels).build()
    load_weights(given, trained)
    for key, value in network.state_dict().items():
        expected = heads[key] if key in heads else given.state_dict()[key]
        assert torch.equal(value, expected), key


def test_a_bare_checkpoint_of_other_classes_is_named(trained: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.pt"
    given = MODELS.get("tiny_ssd")(Painted.labels).build()
    torch.save(given.state_dict(), bare)
    spec = MODELS.get("tiny_ssd")(("background", "a"))
    options = TrainOptions(
        model="tiny_ssd", stages=(Stage(size=64, images=8),), start_from=str(bare)
    )
    with pytest.raises(BadConfig, match=r"bare\.pt knows other classes, the training has a: set"):
        start(spec.build(), spec, options)


def test_frozen_parts_do_not_change(base: dict[str, Any], trained: Path) -> None:
    chosen = TrainOptions(**base, start_from=str(trained), freeze="all-but-heads")
    train(chosen)
    before = MODELS.get("tiny_ssd")(Painted.labels).build()
    load_weights(before, trained)
    after = read(Path(base["out"]) / "last.pt")["network"]
    changed = {
        key for key, value in before.state_dict().items() if not torch.equal(value, after[key])
    }
    assert {part_of(key) for key in changed} == {"heads"}


def test_patience_ends_a_training_and_the_best_weights_are_kept(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = TrainOptions(
        **{**base, "stages": (Stage(size=64, images=80),)}, validate_every=8, patience=2
    )
    values = iter([0.2, 0.6, 0.5, 0.4, 0.9])
    seen: list[torch.Tensor] = []
    real = HeldOut.score

    def scored(self: HeldOut, network: Any, options: TrainOptions) -> Any:
        seen.append(network.state_dict()["base_net.0.0.weight"].clone())
        score = real(self, network, options)
        return type(score)(
            **{f: getattr(score, f) for f in score.__struct_fields__} | {"value": next(values)}
        )

    monkeypatch.setattr(HeldOut, "score", scored)
    manifest = read_manifest(train(chosen))
    assert [each.map for each in manifest.validations] == [0.2, 0.6, 0.5, 0.4]
    assert manifest.best is not None
    assert (manifest.best.images, manifest.images_seen) == (16, 32)
    stored = read(Path(base["out"]) / "best.pt")["base_net.0.0.weight"]
    assert torch.equal(stored, seen[1])
    assert not torch.equal(stored, seen[3])


def test_an_interrupted_training_validates_as_an_uninterrupted_one(
    base: dict[str, Any], tmp_path: Path
) -> None:
    longer = {**base, "stages": (Stage(size=64, images=32),), "validate_every": 16}
    whole = read_manifest(train(TrainOptions(**longer)))
    longer["out"] = str(tmp_path / "parts")
    for images in (8, 16, 24, None):
        parts = read_manifest(train(TrainOptions(**longer, stop_after=images)))
    assert [each.images for each in whole.validations] == [16, 32]
    assert parts.validations == whole.validations
    assert parts.sha256 == whole.sha256


def test_statistics_of_the_result_are_those_of_its_weights(
    base: dict[str, Any], tmp_path: Path
) -> None:
    options = TrainOptions(**base, settle=32, freeze="none")
    spec = MODELS.get("tiny_ssd")(Painted.labels)
    feed = open_feed(spec, options)
    network = spec.build()
    norm = network.base_net[0][1]
    frozen = copy.deepcopy(network)
    norm.running_mean.fill_(1e3)  # as after an average that does not fit
    settle(network, spec, feed, options)
    shown = Input((64, 64), False, spec.priors)
    seen = [network.base_net[0][0](feed.batch(first, 16, shown).images) for first in (0, 16)]
    expected = torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected, atol=1e-4, rtol=1e-4)
    assert norm.momentum == frozen.base_net[0][1].momentum
    assert not norm.training
    settle(frozen, spec, feed, msgspec.structs.replace(options, freeze="base"))
    assert not frozen.base_net[0][1].running_mean.any()


def test_a_channel_that_was_silent_is_not_made_loud() -> None:
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm2d(3, 1e-5)).eval()
    images = torch.full((2, 3, 1, 1), -1.0)
    images[0, :2] = torch.tensor([2.0, 4.0])[:, None, None]
    recount(network, [network[1]], [images])
    # of 2 and 0, of 4 and 0, of nothing: sample variances 2, 8 and 0, the median is 2
    assert network[1].running_var.tolist() == pytest.approx([2.0, 8.0, LEAST_VARIANCE * 2.0])
    with torch.no_grad():
        assert not network(images)[:, 2].any()
        assert 1.0 < network(torch.ones(1, 3, 1, 1))[0, 2].item() < 10.0


def test_a_model_that_is_wider_than_high_trains(painted: str, tmp_path: Path) -> None:
    chosen = TrainOptions(
        model="slim_320_face",
        data=f"{painted}:train",
        data_images=4,
        stages=(Stage(size=120, images=2, close_up=True), Stage(size=240, images=2)),
        batch=2,
        evaluate=0,
        out=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"),
        workers=0,
    )
    train(chosen)
    assert len(log_of(str(chosen.out))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(p.stem for p in (ROOT / "models").glob("[!_]*.py")))
def test_every_model_trains(model: str, painted: str, tmp_path: Path) -> None:
    height = MODELS.get(model)(Painted.labels).image.height
    chosen = TrainOptions(
        model=model,
        data=f"{painted}:train",
        data_images=4,
        stages=(Stage(size=height, images=2),),
        batch=2,
        settle=0,
        evaluate=0,
        out=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"),
        workers=0,
    )
    assert train(chosen).is_file()
    (loss,) = log_of(str(chosen.out))
    assert 0 < loss < 100


def test_the_command_reports_score_and_curves(
    base: dict[str, Any], tiny_ssd: Path, painted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(tiny_ssd), "-o", base["out"], "--data", base["data"]]
    words += ["--val", base["evaluate_data"], "--workers", "0", "--set", "stages=64:16"]
    words += ["--set", "batch=8", "--set", "validate_every=8", "--set", f"cache={base['cache']}"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "VOC12 mAP@.5" in shown.out
    assert "on 8 images of voc:val" in shown.out
    assert "all weights start random" in shown.err
    page = (Path(base["out"]) / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "images shown" in page
    manifest = json.loads((Path(base["out"]) / "weights.json").read_text())
    assert manifest["commands"][0] in page.replace("&#39;", "'")
    assert main([*words, "--set", "workers=1"]) == 2
    assert "'workers' is given twice" in capsys.readouterr().err
