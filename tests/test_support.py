"""The table of what goes through what: generated, never typed; every model is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.support import (
    FOUND,
    README,
    TABLE,
    VARIANTS,
    deterministic,
    in_readme,
    merge,
    square,
    summary,
    table,
)
from harness.registry import ROOT


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FOUND.read_text(encoding="utf-8"))
    return found


def test_the_committed_table_is_what_was_found() -> None:
    assert TABLE.read_text(encoding="utf-8") == table(committed())


def test_the_readme_holds_the_same_table_in_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert summary(committed()) in text
    assert in_readme(text, committed()) == text


def test_every_model_is_named() -> None:
    page = TABLE.read_text(encoding="utf-8")
    for path in (ROOT / "models").glob("[!_]*.py"):
        for text in VARIANTS.get(path.stem, (path.stem,)):
            assert f"`{text}`" in page


def row(state: str, **more: Any) -> dict[str, Any]:
    return {"exporter": "onnx_float", "runner": "ort_cpu", "state": state, "reason": None, **more}


def test_squares_say_what_became_of_a_cell() -> None:
    assert square(None) == "–"
    assert square(row("ok", logits_sqnr_db=121.4, offsets_sqnr_db=118.6)) == "yes 121/119"
    assert square(row("parity-failed")) == "runs"
    assert square(row("export-failed")) == "export-failed"


def test_a_new_finding_replaces_the_old_one_and_its_reason_is_told() -> None:
    facts = {"input": "300 x 300", "classes": 21, "priors": 1, "parameters": 1, "macs": 1}
    found: dict[str, Any] = {}
    merge(found, "one", facts, [row("ok", logits_sqnr_db=100.0, offsets_sqnr_db=100.0)])
    assert "Nothing failed." in table(found)
    merge(found, "one", facts, [row("crashed") | {"reason": "killed by SIGSEGV"}])
    assert len(found["models"]["one"]["cells"]) == 1
    assert "`one`, `onnx_float` → `ort_cpu`: killed by SIGSEGV" in table(found)


@pytest.mark.parametrize(
    ("key", "shape", "low", "high"),
    [("a.running_var", (50,), 0.5, 1.5), ("a.bias", (50,), -0.5, 0.5), ("a", (9, 9), -3, 3)],
)
def test_weights_depend_on_their_name_alone(
    key: str, shape: tuple[int, ...], low: float, high: float
) -> None:
    values = deterministic(key, shape)
    assert (values == deterministic(key, shape)).all()
    assert (deterministic("b" + key, shape) != values).any()
    assert low < values.min() < values.max() < high
