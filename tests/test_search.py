"""`detbench search`: ranges in chains, limits, the front, and a whole search through children."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import pytest

from harness.cli import main
from harness.commands.search import Way, _explore
from harness.errors import BadConfig, UnknownName
from harness.interfaces import MODELS
from harness.registry import load_file
from harness.report.data import RunData
from harness.report.searched import searched_table
from harness.search import FILE, Limits, Trial, front, space, violations
from models._checkpoint import save_weights
from tests.painted import paint

GRID = Path(__file__).parent / "plugins" / "grid.py"


def test_each_range_is_drawn_apart_whole_or_in_steps() -> None:
    asked: list[tuple[float, float, float]] = []

    def number(name: str, low: float, high: float, step: float) -> float:
        asked.append((low, high, step))
        return high

    chain = space("prune:0.3..0.9+kmeans:4..6")
    assert chain.draw(number) == "prune:0.9+kmeans:6"
    assert asked == [(0.3, 0.9, 0.05), (4.0, 6.0, 1.0)]
    assert space("none").draw(number) == "none"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("prune:0.9..0.3", BadConfig, r"range 0\.9\.\.0\.3 .* is empty"),
        ("prune:0.3..1.9", BadConfig, r"sparsity 1\.9: give a number from 0 to 1"),
        ("kmeans:1..8", BadConfig, "bits 1: give 2 to 8"),
        ("prone:0.3..0.9", UnknownName, "did you mean 'prune'"),
    ],
)
def test_a_range_is_checked_at_both_ends(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        space(text)


def trial(name: str, score: float, ms: float, mb: float, *, fits: bool = True) -> Trial:
    return Trial(
        recipe=name,
        exporter="e",
        runner="r",
        map=score,
        latency_ns=ms * 1e6,
        size_bytes=round(mb * 1e6),
        fits=fits,
    )


def test_the_front_holds_what_nothing_beats_in_all_three() -> None:
    trials = [
        trial("best", 0.8, 20, 10),
        trial("fast", 0.7, 10, 10),
        trial("small", 0.7, 20, 5),
        trial("beaten", 0.7, 21, 10),
        trial("twin", 0.8, 20, 10),
        trial("outside", 0.9, 5, 1, fits=False),
    ]
    assert [one.recipe for one in front(trials)] == ["fast", "best", "small", "twin"]
    assert front([]) == []


def test_the_report_says_what_became_of_each_trial(tmp_path: Path) -> None:
    trials = [
        trial("none", 0.8, 20, 10),
        trial("prune:0.9", 0.7, 21, 10),
        Trial(recipe="kmeans:4", exporter="e", runner="r", map=0.6, change=-0.2, why="too large"),
        Trial(recipe="kmeans:8", exporter="e", runner="r", why="logits have an SQNR of 2 dB"),
    ]
    (tmp_path / FILE).write_bytes(msgspec.json.encode(trials))
    table = searched_table([RunData(machine={}, run={}, records=[], artifacts={}, folder=tmp_path)])
    assert table.caption.startswith(
        "4 combinations tried, 2 within the limits of the search, 1 not"
    )
    assert [line.highlight for line in table.lines] == [True, False, False, False]
    shown = [[value.text or value.note for value in line.values[4:]] for line in table.lines]
    assert shown == [
        ["80.0", "not scored", "20.0", "10.0", "not beaten"],
        ["70.0", "not scored", "21.0", "10.0", "beaten by none e r"],
        ["60.0", "−20.0", "not timed", "no file", "too large"],
        ["not scored", "not scored", "not timed", "no file", "logits have an SQNR of 2 dB"],
    ]


def test_limits_are_broken_by_parts_of_themselves() -> None:
    limits = Limits(latency_ms=10, size_mb=4, drop=0.02)
    slow = Trial(
        recipe="a", exporter="e", runner="r", change=-0.03, size_bytes=2_000_000, latency_ns=15e6
    )
    assert violations(slow, limits, "open") == pytest.approx((0.5, -0.5, 0.5))
    assert violations(slow, limits, "yes")[2] <= 0, "the paired test has the last word"
    by_luck = Trial(recipe="a", exporter="e", runner="r", change=-0.01)
    assert violations(by_luck, limits, "no")[2] > 0
    assert max(violations(slow, Limits(), None)) < 0


class Pretended:
    """Answers as a searcher whose pruned networks lose accuracy and gain speed; one way fails."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.done = limits, {}
        self.ways = [Way("onnx_float", "ort_cpu"), Way("onnx_int8", "ort_cpu"), Way("bad", "r")]

    def trial(self, recipe: str, way: Way) -> tuple[Trial, tuple[float, float, float]]:
        sparsity = float(recipe.partition(":")[2] or 0)
        lost = sparsity**4 / 3 + (0.01 if way.exporter == "onnx_int8" else 0.0)
        found = Trial(recipe=recipe, exporter=way.exporter, runner=way.runner, why="it failed")
        if way.exporter != "bad":
            slow = lost > (self.limits.drop or 1)
            ms = (4 if way.exporter == "onnx_int8" else 10) * (1 - sparsity / 2)
            found = Trial(
                recipe=recipe,
                exporter=way.exporter,
                runner=way.runner,
                map=0.8 - lost,
                change=-lost,
                size_bytes=4_000_000,
                latency_ns=None if slow else ms * 1e6,
                fits=not slow,
            )
        broken = violations(found, self.limits, None)
        answer = found, ((1.0, 1.0, 1.0) if way.exporter == "bad" else broken)
        self.done[found.name] = answer
        return answer


def test_the_optimizer_learns_where_the_limits_are() -> None:
    searcher = Pretended(Limits(drop=0.05))
    options = argparse.Namespace(seed=0, trials=24, quiet=True)
    spaces = [space("none"), space("prune:0.1..0.95")]
    _explore(pytest.importorskip("optuna"), searcher, spaces, options)  # type: ignore[arg-type]
    trials = [trial for trial, _ in searcher.done.values()]
    assert trials[0].name == "none onnx_float ort_cpu", "what loses nothing comes first"
    first, late = trials[:10], trials[10:]
    assert len(late) >= 5
    share = [sum(one.fits for one in part) / len(part) for part in (first, late)]
    assert share[1] > share[0], "it asks less for what fails"
    assert front(trials)[0].exporter == "onnx_int8"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Weights, classes and data of the plug-in's model, whose children start fast."""
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("grid")
    load_file(GRID)
    labels = ("background", "square", "star")
    save_weights(MODELS.get("grid")(labels).build(), folder / "grid.safetensors", half=False)
    (folder / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    words = ["--weights", str(folder / "grid.safetensors")]
    words += ["--labels", str(folder / "labels.txt")]
    return [*words, "--data", f"{paint(folder / 'data', train=24)}:val"]


@pytest.fixture
def command(inputs: list[str], tmp_path: Path) -> list[str]:
    """A search over that model."""
    words = ["search", "grid", "--plugin", str(GRID), "--no-report", "--seed", "3", *inputs]
    words += ["--images", "4", "--exporters", "grid_numpy", "--runners", "grid_cpu"]
    words += ["--set", "latency.tier=smoke", "--set", "latency.rounds=1"]
    words += ["--set", "calibration.images=4"]
    return [*words, "--results", str(tmp_path / "results")]


@pytest.mark.slow  # a dozen children
def test_a_search_measures_each_combination_once_and_goes_on(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    asked = [*command, "--recipes", "none,prune:0.5..1", "--max-size-mb", "1"]
    assert main([*asked, "--trials", "1"]) == 0
    (path,) = (tmp_path / "results").glob("*/search-grid/search.json")
    first = json.loads(path.read_text())
    assert len(first) == 1
    assert all(one["fits"] and one["latency_ns"] > 0 and len(one["cells"]) == 2 for one in first)
    front = path.parent.with_name("search-grid-front")
    measured = [json.loads(file.read_text())["cell"] for file in front.rglob("cells/*.json")]
    assert {cell["measure"] for cell in measured} == {"accuracy", "latency"}
    records = {file: file.stat().st_mtime_ns for file in path.parent.rglob("cells/*.json")}
    assert main([*asked, "--trials", "2"]) == 0
    again = json.loads(path.read_text())
    assert len({one["recipe"] for one in again}) == 2
    assert again[:1] == first, "the same seed asks the same, and records are kept"
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in records.items())
    assert "2 combinations, 2 within the limits" in capsys.readouterr().out
    assert main([*command, "--recipes", "none", "--trials", "1", "--max-size-mb", "0.00001"]) == 1
    said = capsys.readouterr()
    assert "too large" in said.err
    assert "0 within the limits" in said.out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--trials", "0"], "--trials is 0"),
        (["--max-drop", "-1"], "--max-drop is -1: give more than 0"),
        (["--recipes", "prune:0.5..2"], "sparsity 2"),
        (["--runners", "grid_cp"], "unknown runner 'grid_cp'"),
    ],
)
def test_what_cannot_be_searched_is_said_first(
    command: list[str], changes: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *changes]) == 2
    assert message in capsys.readouterr().err
