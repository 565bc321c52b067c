"""Recipes: how they are asked for, what pruning keeps, and where the plan names them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from harness import recipes
from harness.config import Training, load
from harness.errors import BadConfig, UnknownName, Unsupported
from harness.plan import export_tasks, make_plan
from harness.recipe_interface import RECIPES, Need, Recipe, RecipeJob, TrainingImages
from harness.records import Cell, ModelSpec, Options, Scalar
from harness.registry import ROOT
from models.recipes._masks import Wanted, keep, pattern


def pointwise(network: Any) -> dict[str, Any]:
    """The pruned weights by layer, (outputs, inputs)."""
    return {
        name: values.detach().numpy()[:, :, 0, 0]
        for name, values in network.named_parameters()
        if values.ndim == 4 and values.shape[2:] == (1, 1) and values.shape[1] > 1
    }


def pruned(spec: ModelSpec, text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    network, said = recipes.parse(text).apply(spec, copy.deepcopy(spec.build()))
    return pointwise(network), said


def test_the_smallest_weights_of_each_layer_go(tiny_spec: ModelSpec) -> None:
    before = pointwise(tiny_spec.build())
    after, (sentence,) = pruned(tiny_spec, "prune:0.75")
    assert after
    for name, weight in after.items():
        stays = weight != 0
        assert stays.sum() == weight.size - round(0.75 * weight.size)
        np.testing.assert_array_equal(weight[stays], before[name][stays])
        assert np.abs(before[name][~stays]).max() <= np.abs(weight[stays]).min()
    assert "(75.0%)" in sentence
    again, _ = pruned(tiny_spec, "prune:0.75")
    for name, weight in after.items():
        np.testing.assert_array_equal(again[name], weight)


def test_only_pointwise_weights_change(tiny_spec: ModelSpec) -> None:
    before = tiny_spec.build().state_dict()
    network, _ = recipes.parse("prune:1").apply(tiny_spec, copy.deepcopy(tiny_spec.build()))
    changed = {
        name for name, value in network.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {n for n in changed if before[n].shape[2:] == (1, 1)}
    assert not any(network.state_dict()[name].any() for name in changed)


def test_global_pruning_ranks_all_layers_together() -> None:
    small, large = np.full((4, 4), 0.1, np.float32), np.full((4, 8), 9.0, np.float32)
    wanted = Wanted(pattern("1x1"), {"small": 1 / 3, "large": 1 / 3}, ranked=True)
    kept = keep({"small": small, "large": large}, wanted)
    assert not kept["small"].any()
    assert kept["large"].all()


@pytest.mark.parametrize("rows", [2, 4, 16])
def test_blocks_go_as_a_whole_and_the_last_may_be_shorter(rows: int) -> None:
    weight = np.random.default_rng(0).normal(size=(18, 10)).astype(np.float32)
    kept = keep({"layer": weight}, Wanted(pattern(f"{rows}x1"), {"layer": 0.5}))["layer"]
    scores = []
    for start in range(0, 18, rows):
        block = kept[start : start + rows]
        assert (block == block[0]).all()
        means = np.abs(weight[start : start + rows]).mean(axis=0)
        scores += list(zip(means, block[0], strict=True))
    assert min(s for s, stays in scores if stays) >= max(s for s, stays in scores if not stays)
    assert sum(stays for _, stays in scores) == len(scores) - round(len(scores) / 2)


def test_n_of_m_keeps_the_largest_of_each_group() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)
    kept = keep({"layer": weight}, Wanted(pattern("1:4"), {"layer": 0.0}))["layer"]
    for start in (0, 4, 8):
        part = np.abs(weight[:, start : start + 4])
        np.testing.assert_array_equal(kept[:, start : start + 4].argmax(1), part.argmax(1))
        assert (kept[:, start : start + 4].sum(1) == 1).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune:1.5", r"sparsity 1\.5: give a number from 0 to 1"),
        ("prune:-0.1", r"sparsity -0\.1"),
        ("prune", "sparsity None"),
        ("prune:much", "sparsity 'much'"),
        ("prune:0.8,pattern=3x3", "no pattern '3x3'"),
        ("prune:pattern=4:2", "no pattern '4:2'"),
        ("prune:0.8,pattern=2:4", "leave out sparsity, layers and scope"),
        ("prune:0.8,scope=all", "no scope 'all'"),
        ("prune:0.8,images=-5", "images -5: give at least 1"),
        ("prune:0.8,images=99,batch=1", "batch 1: give at least 2"),
        ("prune:pattern=2:4,images=99", "cannot grow: leave out images"),
        ("prune:layers=no.json", r"no\.json cannot be read"),
        ("finetune:0", "finetune got images 0"),
        ("finetune:learning_rate=-1", r"learning_rate -1\.0: give more than 0"),
        ("prune:0.8,sparsty=0.7", "did you mean 'sparsity'"),
    ],
)
def test_what_cannot_be_followed_is_known_before_any_work(text: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        make_plan(load(None, {"recipes": [text], "exporters": ["onnx_float"]}))


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(UnknownName, match="unknown recipe 'prone': did you mean 'prune'"):
        recipes.parse("prone:0.8")


def test_a_chain_is_followed_in_order(tiny_spec: ModelSpec) -> None:
    chain = recipes.parse("prune:0.5 + prune:pattern=2:4")
    assert str(chain) == "prune:0.5+prune:pattern=2:4"
    assert str(recipes.parse("prune:scope=global,sparsity=0.5,pattern=4x1")) == (
        "prune:0.5,pattern=4x1,scope=global"
    )
    assert recipes.parse(str(chain)) == chain
    assert len(chain.apply(tiny_spec, copy.deepcopy(tiny_spec.build()))[1]) == 2
    assert str(recipes.parse("none")) == "none"


def test_the_plan_names_recipe_and_fingerprints_it() -> None:
    asked = {"recipes": ["none", "prune:0.8"], "exporters": ["onnx_float"], "threads": [1]}
    tasks = export_tasks(load(None, asked))
    assert [task.request.recipe for task in tasks] == [
        "none",
        "prune:0.8",
    ]
    assert len({task.fingerprint for task in tasks}) == 2
    cells = [planned.cell for planned in make_plan(load(None, asked)).cells]
    names = {cell.model_name for cell in cells}
    assert len(names) == 2
    assert len({cell.base_name for cell in cells}) == 1


def test_a_cell_without_recipe_is_readable() -> None:
    assert Cell.__struct_defaults__[-1] == "none"


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "models/recipes").glob("[!_]*.py")))
def test_recipes_say_what_they_are(name: str) -> None:
    recipe = RECIPES.get(name)
    assert issubclass(recipe, Recipe)
    assert recipe.name == name
    assert recipe.positional is None or recipe.positional in recipe.options


class Costly(Recipe):
    """Adds one to every weight, and counts how often it really did."""

    name = "costly"
    options: ClassVar[Options] = {"seed": 0}
    costly = True
    done = 0

    def check(self, options: Mapping[str, Scalar]) -> None: ...

    def needs(self, options: Mapping[str, Scalar]) -> frozenset[Need]:
        return frozenset({"training"})

    def apply(self, job: RecipeJob) -> tuple[Any, tuple[str, ...]]:
        assert job.training is not None
        assert job.calibration is None
        assert job.folder is not None
        assert job.folder.is_dir()
        type(self).done += 1
        for value in job.network.parameters():
            value.data.add_(1)
        return job.network, (f"added 1, seed {job.options['seed']}",)


class Last(Costly):
    """Nothing can follow it, and it would undo a pruning."""

    name = "last"
    final = True
    spoils: ClassVar[frozenset[str]] = frozenset({"prune"})


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> type[Costly]:
    monkeypatch.setattr(Costly, "done", 0)
    monkeypatch.setitem(RECIPES._found, "costly", Costly)
    monkeypatch.setitem(RECIPES._found, "last", Last)
    return Costly


def test_a_costly_step_is_done_once_for_all_exports(
    tiny_spec: ModelSpec, costly: type[Costly], tmp_path: Path
) -> None:
    def follow(text: str, identity: str = "a") -> tuple[dict[str, Any], tuple[str, ...]]:
        supplies = recipes.Supplies(
            training=TrainingImages("shapes:train", 8, 0.5), kept=tmp_path, identity=identity
        )
        network, said = recipes.parse(text).apply(
            tiny_spec, copy.deepcopy(tiny_spec.build()), supplies
        )
        return network.state_dict(), said

    first, said = follow("costly")
    again, said_again = follow("costly")
    assert costly.done == 1
    assert said == said_again == ("added 1, seed 0",)
    assert all(value.equal(again[name]) for name, value in first.items())
    for text, identity in [("costly:seed=1", "a"), ("prune:0.5+costly", "a"), ("costly", "b")]:
        before = costly.done
        follow(text, identity)
        assert costly.done == before + 1, "another input is another result"


def test_a_recipe_gets_no_images_that_are_not_there(
    tiny_spec: ModelSpec, costly: type[Costly]
) -> None:
    with pytest.raises(BadConfig, match="recipe costly needs training images"):
        recipes.parse("costly").apply(tiny_spec, tiny_spec.build())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("last+prune:0.5", "prune comes after last, which nothing can follow"),
        ("prune:0.5+last", "last undoes what prune did before it: put last before prune"),
        ("onnx_int8+prune:0.5", "onnx_int8 in a chain of recipes is an exporter"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    costly: type[Costly], text: str, message: str
) -> None:
    with pytest.raises(BadConfig, match=message):
        recipes.parse(text)


def test_the_plan_names_the_training_images(costly: type[Costly]) -> None:
    asked: dict[str, Any] = {"recipes": ["none", "costly"], "exporters": ["onnx_float"]}
    plain, trained = export_tasks(load(None, {**asked, "training.images": 4}))
    assert plain.request.training is None
    own = Training(data="shapes:train", images=4, match_iou=0.4)  # as the manifest says
    assert trained.request.training == own
    matched = export_tasks(load(None, {**asked, "training": {"images": 4, "match_iou": 0.5}}))[1]
    assert matched.request.training == Training(data="shapes:train", images=4, match_iou=0.5)
    other = export_tasks(load(None, {**asked, "training.images": 5}))[1]
    assert other.fingerprint != trained.fingerprint
    with pytest.raises(BadConfig, match="4 of the 4 images that recipes train on"):
        export_tasks(load(None, {**asked, "training": {"data": "shapes:val", "images": 4}}))


def test_a_recipe_that_does_not_apply_is_known_before_the_first_is_followed(
    tiny_spec: ModelSpec, costly: type[Costly]
) -> None:
    import torch

    supplies = recipes.Supplies(training=TrainingImages("shapes:train", 8, 0.5))
    with pytest.raises(Unsupported, match=r"prune does not apply to .*: it has no conv"):
        recipes.parse("costly+prune:0.5").apply(tiny_spec, torch.nn.Conv2d(3, 8, 3), supplies)
    assert costly.done == 0
