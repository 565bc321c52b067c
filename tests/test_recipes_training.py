"""Recipes that train: what earlier recipes did is kept, and sparsity grows as it should."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import machine, recipes
from harness.errors import BadConfig, Unsupported
from harness.recipe_interface import TrainingImages
from harness.records import ModelSpec
from models.recipes import prune as pruning
from models.recipes._shared import array, codebook, convolutions, pointwise
from models.training.state import STATE
from tests.painted import paint

TRAINED = "images=64,batch=8,learning_rate=0.003"


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("painted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETBENCH_CACHE", str(folder / "cache"))
        patch.setattr(machine, "usable_cores", lambda: 1)  # no process more for 24 images
        yield f"{paint(folder)}:train"


def follow(
    spec: ModelSpec, text: str, painted: str, kept: Path | None = None
) -> tuple[Any, tuple[str, ...]]:
    supplies = recipes.Supplies(training=TrainingImages(painted, None, 0.5), kept=kept)
    return recipes.parse(text).apply(spec, copy.deepcopy(spec.build()), supplies)


def test_fine_tuning_keeps_zeros_and_learns(painted: str, tiny_spec: ModelSpec) -> None:
    before, _ = follow(tiny_spec, "prune:0.7", painted)
    after, said = follow(tiny_spec, f"prune:0.7+finetune:{TRAINED}", painted)
    assert before.state_dict().keys() == after.state_dict().keys()
    moved = 0
    for name, module in pointwise(after).items():
        was = array(pointwise(before)[name])
        np.testing.assert_array_equal(array(module) == 0, was == 0)
        moved += int((array(module) != was).sum())
    assert moved
    assert not after.training
    assert "8 layers kept their masks" in said[-1]
    assert "trained on 64 images" in said[-1]
    assert "matched from an IoU of 0.5" in said[-1]


def test_boxes_are_matched_as_the_supplies_say(
    painted: str, tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(network: Any, spec: Any, options: Any, **_: Any) -> Any:
        asked.append(options.match_iou)
        return SimpleNamespace(log=[])

    monkeypatch.setattr("models.recipes._holding.fine_tune", spy)
    supplies = recipes.Supplies(training=TrainingImages(painted, None, 0.4))
    recipes.parse("finetune:64").apply(tiny_spec, tiny_spec.build(), supplies)
    assert asked == [0.4]


def test_fine_tuning_trains_codebooks(painted: str, tiny_spec: ModelSpec) -> None:
    chain = "prune:0.5+kmeans:3"
    before, _ = follow(tiny_spec, chain, painted)
    after, said = follow(tiny_spec, f"{chain}+finetune:{TRAINED}", painted)
    trained = 0
    for name, module in convolutions(after).items():
        was, now = codebook(array(convolutions(before)[name])), codebook(array(module))
        if was is None:
            continue
        assert now is not None
        assert len(now.values) <= len(was.values), "weights that were alike still are"
        zero = array(convolutions(before)[name]) == 0
        np.testing.assert_array_equal(array(module) == 0, zero)
        for index in range(len(was.values)):
            same = array(module).ravel()[was.indices == index]
            assert (same == same[0]).all()
            trained += int(same[0] != was.values[index])
    assert trained
    assert "kept their codebooks" in said[-1]


def test_sparsity_grows_by_the_cubic_schedule(
    painted: str, tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def spy(weights: Any, wanted: Any) -> Any:
        asked.append(next(iter(wanted.sparsity.values())))
        return keep(weights, wanted)

    keep = pruning.keep
    monkeypatch.setattr(pruning, "keep", spy)
    network, said = follow(tiny_spec, f"prune:0.8,{TRAINED}", painted)
    expected = [0.8 * (1 - (1 - step / 6) ** 3) for step in range(1, 7)]
    np.testing.assert_allclose(asked, expected)  # 8 steps, growing over the first 6
    for module in pointwise(network).values():
        assert np.count_nonzero(array(module)) == array(module).size - round(
            0.8 * array(module).size
        )
    assert "while the sparsity grew" in said[0]
    assert "(80.0%)" in said[1]


def test_a_training_is_done_once_and_leaves_no_state(
    painted: str, tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    first, said = follow(tiny_spec, f"finetune:{TRAINED}", painted, kept)
    (folder,) = kept.iterdir()
    assert not (folder / STATE).exists()
    stamp = (folder / "values.npz").stat().st_mtime_ns
    again, said_again = follow(tiny_spec, f"finetune:{TRAINED}", painted, kept)
    assert (folder / "values.npz").stat().st_mtime_ns == stamp
    assert said == said_again
    for name, value in first.state_dict().items():
        assert value.equal(again.state_dict()[name])


@pytest.fixture
def supplies(painted: str, tiny_calibration: Any) -> recipes.Supplies:
    return recipes.Supplies(
        training=TrainingImages(painted, None, 0.5), calibration=tiny_calibration
    )


def test_qat_leaves_weights_on_the_grid_that_exporters_find(
    tiny_spec: ModelSpec, supplies: recipes.Supplies
) -> None:
    network, said = recipes.parse(f"prune:0.5+fold+qat:{TRAINED}").apply(
        tiny_spec, copy.deepcopy(tiny_spec.build()), supplies
    )
    plain, _ = recipes.parse("prune:0.5+fold").apply(tiny_spec, copy.deepcopy(tiny_spec.build()))
    assert network.state_dict().keys() == plain.state_dict().keys()
    moved = 0
    for name, module in convolutions(network).items():
        rows = array(module).reshape(len(array(module)), -1)
        scale = np.maximum(np.abs(rows).max(1, keepdims=True) / 127, 1e-12)
        np.testing.assert_allclose(rows / scale, np.round(rows / scale), atol=1e-3)
        was = array(convolutions(plain)[name])
        assert not array(module)[was == 0].any(), "pruned weights stay zero"
        step = np.abs(array(module) - was).reshape(rows.shape) / scale
        moved += int((step > 1).sum())
    assert moved, "more than rounding happened"
    assert "weights rounded to 8 bits" in said[-1]


def test_qat_for_four_bits_is_what_quantsim_of_four_bits_scores(
    tiny_spec: ModelSpec, supplies: recipes.Supplies
) -> None:
    network, said = recipes.parse(f"fold+qat:{TRAINED},weights=4").apply(
        tiny_spec, copy.deepcopy(tiny_spec.build()), supplies
    )
    for module in convolutions(network).values():
        rows = array(module).reshape(len(array(module)), -1)
        assert max(len(np.unique(row)) for row in rows) <= 15
    before = {name: array(module).copy() for name, module in convolutions(network).items()}
    recipes.parse("quantsim:weights=4").apply(tiny_spec, network, supplies)
    for name, module in convolutions(network).items():
        np.testing.assert_allclose(array(module), before[name], atol=1e-6)
    assert "weights rounded to 4 bits" in said[-1]
    with pytest.raises(BadConfig, match="recipe qat got weights=9: give a whole number from 2 to"):
        recipes.parse("fold+qat:64,weights=9")


def test_qat_asks_for_folded_batch_norms(tiny_spec: ModelSpec, supplies: recipes.Supplies) -> None:
    network = tiny_spec.build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(Unsupported, match=r"fold them before, as fold\+qat"):
        recipes.parse("finetune:64+qat:64").apply(tiny_spec, network, supplies)
    for name, value in network.state_dict().items():
        assert value.equal(before[name]), "nothing was done before the refusal"


def layers_file(folder: Path, layers: object) -> Path:
    path = folder / "layers.json"
    path.write_text(json.dumps({"layers": layers}), encoding="utf-8")
    return path


def test_each_layer_gets_its_own_sparsity(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    names = list(pointwise(tiny_spec.build()))
    path = layers_file(tmp_path, {names[0]: 0.25, names[1]: 0.75})
    chain = recipes.parse(f"prune:layers={path}")
    assert recipes.parse(str(chain)) == chain
    network, (sentence,) = chain.apply(tiny_spec, copy.deepcopy(tiny_spec.build()))
    sparse = {
        n: 1 - np.count_nonzero(array(m)) / array(m).size for n, m in pointwise(network).items()
    }
    assert sparse[names[0]] == pytest.approx(0.25, abs=0.01)
    assert sparse[names[1]] == pytest.approx(0.75, abs=0.01)
    assert {sparse[name] for name in names[2:]} == {0.0}
    assert "of 2 pointwise convolutions" in sentence
    layers_file(tmp_path, {names[0]: 0.5})
    with pytest.raises(BadConfig, match="is not what it was when this recipe was written"):
        recipes.parse(str(chain))
    assert str(recipes.parse(f"prune:layers={path}")) != str(chain)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"stem": 1.5}, r"layer stem in .* got sparsity 1\.5: give a number from 0 to 1"),
        ({"stem": "much"}, "got sparsity 'much'"),
        ({}, "names no layer"),
        (["stem"], "does not say how sparse layers shall be"),
    ],
)
def test_a_wrong_file_of_layers_is_refused(layers: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=message):
        recipes.parse(f"prune:layers={layers_file(tmp_path, layers)}")


def test_a_layer_that_the_network_lacks_is_named(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    path = layers_file(tmp_path, {"bottleneck.0.9": 0.5})
    with pytest.raises(Unsupported, match=r"no 1x1 convolution 'bottleneck\.0\.9', did you mean"):
        recipes.parse(f"prune:layers={path}").apply(tiny_spec, tiny_spec.build())
