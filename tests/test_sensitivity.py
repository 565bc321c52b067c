"""The sensitivity scan: runs from a layer on equal whole runs, curves, choices, and going on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import recipes
from harness.accuracy.voc import voc_map
from harness.cli import main
from harness.datasets import open_dataset
from harness.decode import decode
from harness.images import Preprocessor, float_input
from harness.interfaces import RawOutputs
from harness.records import ModelSpec
from harness.sensitivity import Point, Scan, Scanned, choose, furthest, table
from models._checkpoint import save_weights
from models.recipes._folding import fold
from models.recipes._sensitivity import Scanner
from models.recipes._shared import array, pointwise
from models.recipes._suffix import Suffix
from models.training import Stage, TrainOptions, fine_tune
from tests.painted import paint

GRID = Path(__file__).parent / "plugins" / "grid.py"


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> str:
    return paint(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="module")
def trained(painted: str, tiny_spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny network, after it learned to find something in the painted images."""
    network = copy.deepcopy(tiny_spec.build())
    options = TrainOptions(
        model="tiny",
        data=f"{painted}:train",
        stages=(Stage(size=32, images=320),),
        learning_rate=1e-2,
        average=0.5,
        cache=str(tmp_path_factory.mktemp("cache")),
        workers=0,
        evaluate=0,
    )
    fine_tune(network, tiny_spec, options)
    return network


def test_a_run_from_a_layer_on_equals_a_whole_one(tiny_spec: ModelSpec, tiny_images: Any) -> None:
    network = tiny_spec.build()
    batches = [torch.from_numpy(tiny_images[:4]), torch.from_numpy(tiny_images[4:])]
    suffix = Suffix(network, batches, workers=2)
    names = suffix.layers(list(pointwise(network)))
    assert sorted(names) == sorted(pointwise(network))
    for name in names:
        suffix.move_to(name)
        weight = array(network.get_submodule(name))
        before = weight.copy()
        weight[::2] = 0
        with torch.inference_mode():
            whole = [network(batch) for batch in batches]
        for number, part in enumerate(suffix.run(lambda _, outputs: outputs)):
            for one, other in zip(part, whole[number], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        weight[...] = before
    assert set(suffix.seconds_after()) >= {names[-1]}


def own_score(spec: ModelSpec, network: Any, data: Any) -> float:
    """VOC12 mAP by a plain loop over the images."""
    prepare = Preprocessor(spec.image, float_input(spec.image))
    names = {name: index for index, name in enumerate(spec.labels)}
    found, truths = [], []
    for index in range(len(data)):
        image, truth = data.image(index), data.truth(index)
        with torch.inference_mode():
            outputs = network(torch.from_numpy(prepare(image)))
        raw = RawOutputs(outputs[0].numpy(), outputs[1].numpy())
        found += decode(raw, priors=spec.priors, decoding=spec.decoding, sizes=[image.shape[:2]])
        labels = np.array([names[data.labels[label]] for label in truth.labels], np.int64)
        truths.append(truth._replace(labels=labels))
    mean = voc_map(truths, found, spec.labels, iou_threshold=0.5, definition="voc12").mean
    assert mean is not None
    return float(mean)


def truths_of(spec: ModelSpec, data: Any) -> list[Any]:
    place = {name: index for index, name in enumerate(spec.labels)}
    to_model = np.array([place[name] for name in data.labels], np.int64)
    truths = [data.truth(index) for index in range(len(data))]
    return [truth._replace(labels=to_model[truth.labels]) for truth in truths]


def test_a_point_is_the_score_of_the_network_pruned_so(
    painted: str, trained: Any, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    data = open_dataset(f"{painted}:val")
    scanner = Scanner(copy.deepcopy(trained), tiny_spec, data, truths_of(tiny_spec, data), "1x1")
    assert scanner.map > 0.01
    assert scanner.map == pytest.approx(own_score(tiny_spec, trained, data), abs=1e-6)
    tasks = scanner.tasks([0.9])
    points = list(scanner.scan(tasks))
    assert [(p.layer, p.sparsity) for p in points] == [(t.layer, t.sparsity) for t in tasks]
    changed = [point for point in points if abs(point.change) > 0.01]
    assert changed
    for point in changed[:2]:
        asked = {point.layer: point.sparsity}
        path = tmp_path / "layers.json"
        path.write_text(json.dumps({"layers": asked}), encoding="utf-8")
        pruned, _ = recipes.parse(f"prune:layers={path}").apply(tiny_spec, copy.deepcopy(trained))
        assert point.map == pytest.approx(own_score(tiny_spec, pruned, data), abs=1e-6)
        assert point.low <= point.change <= point.high
        assert scanner.score(asked) == Point(
            layer="",
            sparsity=0.0,
            **{k: getattr(point, k) for k in ("map", "change", "low", "high")},
        )


def test_folding_changes_no_answer(trained: Any, tiny_images: Any) -> None:
    folded = copy.deepcopy(trained)
    assert fold(folded)
    with torch.inference_mode():
        for one, other in zip(
            trained(torch.from_numpy(tiny_images)),
            folded(torch.from_numpy(tiny_images)),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def curve(layer: str, *points: tuple[float, float]) -> list[Point]:
    return [Point(layer=layer, sparsity=s, map=0.5 + c, change=c, low=c, high=c) for s, c in points]


def test_how_far_a_layer_can_go_is_read_between_its_points() -> None:
    falling = curve("a", (0.5, -0.02), (0.9, -0.10))
    assert furthest(falling, 0.0) == 0.0
    assert furthest(falling, 0.01) == pytest.approx(0.25)
    assert furthest(falling, 0.06) == pytest.approx(0.7)
    assert furthest(falling, 0.2) == 0.9
    rises_by_chance = curve("a", (0.3, 0.01), (0.5, -0.04), (0.9, -0.01))
    assert furthest(rises_by_chance, 0.0) == pytest.approx(0.3)
    assert furthest(rises_by_chance, 0.03) < 0.5
    assert furthest(rises_by_chance, 0.04) == 0.9


def scan_of(**curves: list[Point]) -> Scan:
    return Scan(
        model="m",
        model_options={},
        weights="w",
        data="d",
        images=1,
        pattern="1x1",
        sparsities=(0.5, 0.9),
        digest="x",
        git_revision="r",
        map=0.5,
        layers=tuple(Scanned(name=name, weights=100) for name in curves),
        points=tuple(point for points in curves.values() for point in points),
    )


@pytest.mark.parametrize("worse", [0.5, 1.0, 3.0, 40.0])
def test_the_choice_keeps_to_the_target_however_layers_add_up(worse: float) -> None:
    scan = scan_of(
        tough=curve("tough", (0.5, -0.001), (0.9, -0.002)),
        weak=curve("weak", (0.5, -0.05), (0.9, -0.3)),
    )

    def score(layers: Mapping[str, float]) -> Point:
        change = -worse * (0.002 * layers["tough"] + 0.2 * layers["weak"])
        return curve("", (0.0, change))[0]

    chosen = choose(scan, 0.02, score)
    assert 0 < -chosen.change <= 0.02
    assert chosen.layers["tough"] > chosen.layers["weak"]
    assert chosen.sparsity == pytest.approx(sum(chosen.layers.values()) / 2)
    assert -chosen.change > 0.01 or chosen.sparsity > 0.85, "it goes as far as it may"


def test_the_table_has_a_row_for_each_point() -> None:
    rows = table(scan_of(a=curve("a", (0.9, -0.1), (0.5, 0.0)))).splitlines()
    assert rows[0] == "layer,weights,sparsity,map,change,low,high"
    assert rows[1:] == ["a,100,0.5,0.5,0,0,0", "a,100,0.9,0.4,-0.1,-0.1,-0.1"]


@pytest.fixture
def command(painted: str, tmp_path: Path) -> list[str]:
    """The arguments of a scan of the plug-in's model, whose weights are two 1x1 convolutions."""
    from harness.interfaces import MODELS
    from harness.registry import load_file

    load_file(GRID)
    labels = ("background", "square", "star")
    save_weights(MODELS.get("grid")(labels).build(), tmp_path / "grid.safetensors", half=False)
    (tmp_path / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    words = ["sensitivity", "grid", "--plugin", str(GRID), "--quiet"]
    words += ["--weights", str(tmp_path / "grid.safetensors")]
    words += ["--labels", str(tmp_path / "labels.txt"), "--data", f"{painted}:val"]
    return [*words, "--images", "4", "--sparsities", "0.5,0.9"]


def test_a_stopped_scan_goes_on_with_what_is_left(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    out, whole = str(tmp_path / "scan"), str(tmp_path / "whole")
    scan_all = Scanner.scan

    def scan_two(self: Scanner, tasks: Any) -> Any:
        for number, point in enumerate(scan_all(self, tasks)):
            if number == 2:
                raise KeyboardInterrupt
            yield point

    monkeypatch.setattr(Scanner, "scan", scan_two)
    assert main([*command, "-o", out]) == 130
    assert len(json.loads((tmp_path / "scan" / "sensitivity.json").read_text())["points"]) == 2
    asked: list[Any] = []

    def scan_rest(self: Scanner, tasks: Any) -> Any:
        asked.extend(tasks)
        return scan_all(self, tasks)

    monkeypatch.setattr(Scanner, "scan", scan_rest)
    assert main([*command, "-o", out, "--target-drop", "5"]) == 0
    assert [task.layer for task in asked] == ["offsets", "offsets"]
    assert main([*command, "-o", whole]) == 0
    first, second = (
        json.loads((tmp_path / name / "sensitivity.json").read_text())["points"]
        for name in ("scan", "whole")
    )
    assert first == second
    assert "sensitivity" in (tmp_path / "scan" / "sensitivity.html").read_text()
    assert (tmp_path / "scan" / "layers.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--sparsities", "0.5,1.5"], "give numbers above 0 and up to 1"),
        (["--sparsities", "half"], "'half' are no numbers"),
        (["--pattern", "2:4"], "there is nothing to scan"),
        (["--pattern", "3x3"], "no pattern '3x3'"),
        (["--target-drop", "0"], "--target-drop is 0"),
    ],
)
def test_what_cannot_be_scanned_is_said_first(
    command: list[str],
    changes: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, *changes, "-o", str(tmp_path / "scan")]) == 2
    assert message in capsys.readouterr().err


def test_another_scan_in_the_same_folder_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = ["-o", str(tmp_path / "scan")]
    assert main([*command, *out]) == 0
    assert main([*command, "--images", "3", *out]) == 2
    assert "is a scan of another model, data" in capsys.readouterr().err
