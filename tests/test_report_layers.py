"""The table of layers for which an exporter chose between kernels."""

from __future__ import annotations

import dataclasses

import msgspec

from harness.layer_records import LayerChoice
from harness.report.join import Joined, join
from harness.report.layers import layers_table
from harness.report.tables import Table, Value
from tests.report_runs import made_up_run

LAYERS = (
    LayerChoice(
        layer="96→576 at 19×19",
        sparsity=0.9,
        dense_us=440.0,
        sparse_us=110.0,
        chosen="sparse 1x1, 1x12 vectors",
        reason="measured",
        chosen_us=110.0,
        macs=2_000_000,
        moved_bytes=1_000_000,
    ),
    LayerChoice(
        layer="16→96 at 150×150",
        sparsity=0.1,
        dense_us=900.0,
        sparse_us=None,
        chosen="dense, 6x2 vectors",
        reason="10% of the weights are zero, too few to gain",
    ),
    LayerChoice(  # as written by an older version
        layer="24→144 at 75×75",
        sparsity=0.9,
        dense_us=300.0,
        sparse_us=100.0,
        chosen="sparse 1x1, 1x12 vectors",
        reason="measured",
    ),
)


def joined_with(layers: tuple[LayerChoice, ...]) -> Joined:
    run = made_up_run()
    artifacts = {
        key: msgspec.structs.replace(one, layers=layers) if one.exporter == "onnx_float" else one
        for key, one in run.artifacts.items()
    }
    return join([dataclasses.replace(run, artifacts=artifacts)])


def lines_of(table: Table) -> list[dict[str, Value]]:
    """Each line's values by the key of their column."""
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, line.values, strict=True)) for line in table.lines]


def test_each_layer_of_each_export_is_one_line_the_slowest_first() -> None:
    lines = lines_of(layers_table(joined_with(LAYERS)))
    places = ["16→96 at 150×150", "96→576 at 19×19", "24→144 at 75×75"]
    assert [line["layer"].text for line in lines] == places * 2
    slow, fast, older = lines[:3]
    assert (older["gain"].text, older["rate"].note) == ("3.00", "not timed")
    assert (fast["gain"].text, fast["rate"].text) == ("4.00", "36.4")
    assert (fast["mflop"].text, fast["kbytes"].text, fast["intensity"].text) == (
        "4.00",
        "1,000",
        "4.00",
    )
    assert slow["sparse"].note == "not timed"
    assert slow["intensity"].note == "not said"
    assert "too few to gain" in slow["chosen"].note


def test_a_tuned_layer_is_listed_before_and_after() -> None:
    tuned = LayerChoice(
        layer="16→96 at 150×150",
        sparsity=0.0,
        dense_us=800.0,
        sparse_us=None,
        chosen="6 pixels x 2 vectors",
        reason="tuned, 10 of 10 cuts tried",
        chosen_us=800.0,
        untuned_us=1000.0,
    )
    line = lines_of(layers_table(joined_with((tuned,))))[0]
    assert not {"dense", "sparse", "gain", "kbytes", "intensity"} & line.keys()
    assert [line[key].text for key in ("untuned", "tuned", "tuning")] == ["1,000", "800", "1.25"]
    both = lines_of(layers_table(joined_with((tuned, *LAYERS))))
    assert {"dense", "sparse", "gain", "untuned", "tuned", "tuning"} <= both[0].keys()
    plain = next(line for line in both if line["layer"].text == LAYERS[0].layer)
    assert plain["tuning"].note == "not tuned"


def test_without_choices_there_is_no_line() -> None:
    assert not layers_table(joined_with(())).lines
