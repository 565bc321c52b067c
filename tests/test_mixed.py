"""The search for layers to keep in float: fewest first, bounded, honest where nothing helps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness import measuring
from harness.cli import main
from harness.errors import ParityFailed
from harness.mixed import search
from harness.records import Measurement
from harness.tasks import MeasureTask
from harness.trials import Trial, row

LAYERS = [f"layer.{number}" for number in range(20)]


def trial(drop: float) -> Trial:
    artifact: Any = None
    return Trial(
        recipe="none",
        exporter="onnx_int8",
        folder=Path(),
        artifact=artifact,
        value=0.5 - drop,
        drop=drop,
        low=drop - 0.004,
        high=drop + 0.004,
        logits_db=30.0,
        offsets_db=None,
    )


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 13, 20])
def test_the_fewest_layers_are_found(needed: int) -> None:
    tried = []

    def attempt(layers: Sequence[str]) -> Trial:
        tried.append(len(layers))
        assert list(layers) == LAYERS[: len(layers)]
        return trial(0.05 if len(layers) < needed else 0.005)

    found = search(trial(0.05), LAYERS, attempt, 0.01)
    assert found.layers == tuple(LAYERS[:needed])
    assert found.enough
    assert found.trial.drop == 0.005
    assert len(tried) == len(set(tried)) <= 9


def test_an_export_that_is_good_enough_keeps_no_layer() -> None:
    def attempt(layers: Sequence[str]) -> Trial:
        raise AssertionError(layers)

    assert search(trial(0.01), LAYERS, attempt, 0.01) == ((), trial(0.01), True)


def test_a_loss_that_no_layer_explains_is_said() -> None:
    found = search(trial(0.05), LAYERS[:5], lambda _: trial(0.04), 0.01)
    assert found == (tuple(LAYERS[:5]), trial(0.04), False)


def test_a_row_shows_points_and_the_verdict() -> None:
    shown = row("onnx_int8", trial(0.02))
    assert "48.00  +2.00 [+1.60, +2.40]" in shown
    assert " 30.0     –" in shown


def test_an_export_that_misses_parity_is_tried_all_the_same(
    measure_task: MeasureTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error = ParityFailed("logits have an SQNR of 0.1 dB")
    error.measured = (Measurement(metric="parity.logits.sqnr_db", value=0.1, unit="dB"),)

    def compare(*_: object) -> None:
        raise error

    opened: Any = SimpleNamespace(
        kind=SimpleNamespace(compare=compare),
        artifact=None,
        priors=None,
        infer=lambda _: None,
        session=SimpleNamespace(board=None),
    )
    golden = SimpleNamespace(images=[], outputs=None)
    monkeypatch.setattr("harness.artifacts.golden", lambda _: golden)
    with pytest.raises(ParityFailed):
        measuring._parity(measure_task, opened, tmp_path)
    loose = msgspec.structs.replace(measure_task, strict=False)
    assert measuring._parity(loose, opened, tmp_path) == list(error.measured)
    error.measured = ()  # such as outputs of another shape, which mean another network
    with pytest.raises(ParityFailed):
        measuring._parity(loose, opened, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mixed", "mb2_ssd_lite", "onnx_float"], "onnx_float cannot keep layers in float: give"),
        (["mixed", "mb2_ssd_lite", "onnx_int8", "--drop", "-1"], "--drop -1.0 is no number"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) != 0
    assert message in capsys.readouterr().err
