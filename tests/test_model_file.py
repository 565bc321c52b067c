"""Models from a YAML file: built from our parts, refused in a sentence, followed end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from harness import config, model_file
from harness.cli import main
from harness.errors import BadConfig, UnknownName
from harness.interfaces import MODELS
from harness.plan import export_tasks
from harness.registry import ROOT

pytest.importorskip("torch", reason="models are built in torch")

LABELS = ("background", "one", "two")
EXAMPLE = ROOT / "examples" / "mb2_half.yaml"
RULE = "  - {smallest: 20, largest: 40}\n"


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """What a test registers is gone after it; the project's own models, once imported, stay."""
    before = set(MODELS.names())
    yield
    for name in set(MODELS.names()) - before:
        MODELS.forget(name)


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def load(path: Path) -> str:
    (name,) = model_file.take([str(path)], [])
    return name


def test_the_names_of_backbones_are_those_there_are() -> None:
    from models._backbones import BACKBONES

    assert set(get_args(get_type_hints(model_file.ModelFile)["backbone"])) == set(BACKBONES)


@pytest.mark.parametrize(
    ("backbone", "maps"),
    [
        ("etinynet", 3),
        ("mb1", 2),
        ("mb2", 2),
        ("mb3_large", 2),
        ("mb3_small", 2),
        ("squeezenet1_1", 2),
        ("vgg16", 2),
    ],
)
def test_every_backbone_carries_heads(backbone: str, maps: int, tmp_path: Path) -> None:
    import torch

    text = f"backbone: {backbone}\nsize: [64, 96]\nextras: [32]\npriors:\n{RULE * (maps + 1)}"
    spec = MODELS.get(load(write(tmp_path, text)))(LABELS)
    with torch.inference_mode():
        logits, offsets = spec.build()(torch.zeros(1, 3, 64, 96))
    assert logits.shape == (1, len(spec.priors), 3)
    assert offsets.shape == (1, len(spec.priors), 4)


def test_a_described_network_is_the_published_one(tmp_path: Path) -> None:
    """The same names and shapes of weights, the same priors as ``mb1_ssd``."""
    specs = zip(
        (16, 32, 64, 100, 150, 300),
        (60, 105, 150, 195, 240, 285),
        (105, 150, 195, 240, 285, 330),
        strict=True,
    )
    rules = "".join(f"  - {{stride: {a}, smallest: {b}, largest: {c}}}\n" for a, b, c in specs)
    text = f"backbone: mb1\nsize: 300\nheads: plain\nextras: [512, 256, 256, 256]\npriors:\n{rules}"
    mine = MODELS.get(load(write(tmp_path, text)))(LABELS)
    ours = MODELS.get("mb1_ssd")(LABELS)
    np.testing.assert_array_equal(mine.priors, ours.priors)
    found, expected = (
        {key: value.shape for key, value in spec.build().state_dict().items()}
        for spec in (mine, ours)
    )
    assert found == expected


GOOD = f"backbone: mb2\nsize: 96\npriors:\n{RULE * 2}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("mb2", "mb9"), "Invalid enum value 'mb9'"),
        (GOOD + "wdith: 2\n", "unknown field `wdith`"),
        (GOOD.replace("96", "16"), "size 16 is below 32 pixels"),
        (GOOD + "width: 9\n", "width 9.0 is outside 0.1 to 4"),
        (GOOD + "std: [1, 0, 1]\n", "must be above 0"),
        (GOOD + "decoding: {iou: 1}\n", "cannot be changed so"),
        (GOOD + "decoding: {policy: mine}\n", "unknown decoding policy 'mine'"),
        (GOOD + "name: mb2_ssd_lite\n", "as one of detbench's own"),
        (GOOD + "name: my model\n", "is no plain word"),
        ("backbone: mb2\nsize: 96\npriors: []\n", "priors is empty"),
        ("backbone: mb2\nsize: 96\n", "missing required field `priors`"),
        ("", "holds no keys"),
    ],
)
def test_bad_files_end_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((BadConfig, UnknownName)) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + RULE, "gives 3 priors, the network has 2 feature maps (6 x 6, 3 x 3 cells)"),
        (GOOD.replace("mb2", "vgg16") + "width: 0.5\n", "backbone vgg16 has no width but 1.0"),
        (GOOD + "labels: [background, one]\n", "names the classes background, one, the weights"),
    ],
)
def test_what_only_the_network_tells_is_refused_when_it_is_built(
    text: str, said: str, tmp_path: Path
) -> None:
    factory = MODELS.get(load(write(tmp_path, text)))
    with pytest.raises(BadConfig) as caught:
        factory(LABELS)
    assert said in str(caught.value)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    load(write(tmp_path, GOOD))
    load(write(tmp_path, GOOD))
    with pytest.raises(BadConfig, match="defined twice"):
        load(write(tmp_path / "other", GOOD))


def test_an_export_depends_on_the_text_of_the_file(tmp_path: Path) -> None:
    weights = write(tmp_path, "any bytes", "weights")
    labels = write(tmp_path, "background\none\n", "labels")

    def fingerprint(text: str) -> str:
        plugins: list[str] = []
        (name,) = model_file.take([str(write(tmp_path, text))], plugins)
        asked = {"models": [name], "exporters": ["torch_float"], "calibration.images": 1}
        matrix = config.load(None, {**asked, "weights": str(weights), "labels": str(labels)})
        return export_tasks(matrix, plugins)[0].fingerprint

    assert fingerprint(GOOD) == fingerprint(GOOD)
    assert fingerprint(GOOD) != fingerprint(GOOD.replace("largest: 40", "largest: 41"))


@pytest.mark.slow
def test_the_example_is_trained_exported_and_held_to_parity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What docs/your-own-model.md says, with a few steps on small pictures."""
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))

    def detbench(*arguments: str) -> str:
        code = main(arguments)
        said = capfd.readouterr()
        assert code == 0, said.out + said.err
        return said.out

    few = [
        "data_images=8",
        "stages=192:8",
        "batch=4",
        "evaluate=0",
        "workers=0",
        f"cache={tmp_path}",
    ]
    settings = [part for pair in few for part in ("--set", pair)]
    model = str(EXAMPLE)
    trained = detbench("train", model, "-o", str(tmp_path / "run"), *settings, "--json")
    assert json.loads(trained)["model"] == "mb2_half"
    weights = next((tmp_path / "run").rglob("*.safetensors"))
    given = ["torch_float", "--weights", str(weights), "--set", "calibration.images=1", "--json"]
    detbench("export", model, *given, "-o", str(tmp_path / "out"))
    detbench("parity", str(tmp_path / "out"), "--results", str(tmp_path / "results"), "--quiet")
