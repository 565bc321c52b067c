"""Charts: what they show, that labels do not collide, and that they fit into a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.extras import require
from harness.report.chart_bars import Bar, sizes, split
from harness.report.chart_labels import Box, Label, place, spread
from harness.report.chart_style import PAINTS, SMALL_PT, drawing, looks, new_figure, text_size, tick
from harness.report.chart_svg import Chart
from harness.report.chart_threads import Series, scaling
from harness.report.chart_tradeoff import Point, pareto, tradeoff


def _point(label: str, ms: float, score: float, *, counts: bool = True) -> Point:
    return Point(
        label=label,
        series="ort_cpu",
        hollow=False,
        counts=counts,
        ms=(ms, 0.98 * ms, 1.03 * ms),
        score=(score, score - 1.5, score + 1.5),
    )


POINTS = [
    _point("quick", 2.0, 40.0),
    _point("middle", 5.0, 60.0),
    _point("worse", 6.0, 55.0),
    _point("best", 20.0, 61.0),
    _point("tainted", 1.0, 70.0, counts=False),
]


def _tradeoff(points: Sequence[Point]) -> Chart:
    with drawing():
        return tradeoff(points, looks(["ort_cpu"]), key="k", title="A title", score_label="mAP (%)")


def _texts(chart: Chart) -> list[str]:
    root = ElementTree.fromstring(chart.svg)
    return [
        "".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    assert [point.label for point in pareto(POINTS)] == ["quick", "middle", "best"]


def test_of_equal_latencies_only_the_better_score_is_on_the_front() -> None:
    points = [_point("low", 3.0, 50.0), _point("high", 3.0, 51.0), _point("same", 4.0, 51.0)]
    assert [point.label for point in pareto(points)] == ["high"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_every_point_is_on_the_front_or_beaten(pairs: list[tuple[int, int]]) -> None:
    points = [_point(str(i), float(ms), float(score)) for i, (ms, score) in enumerate(pairs)]
    front = pareto(points)
    assert all(a.ms[0] < b.ms[0] and a.score[0] < b.score[0] for a, b in pairwise(front))
    for point in points:
        assert any(f.ms[0] <= point.ms[0] and f.score[0] >= point.score[0] for f in front)


def test_tradeoff_labels_every_point_and_both_axes() -> None:
    chart = _tradeoff(POINTS)
    texts = _texts(chart)
    assert {point.label for point in POINTS} <= set(texts)
    assert {"Inference latency, median (ms)", "mAP (%)"} <= set(texts)
    assert chart.caption.startswith("3 of 5 points are on the Pareto front")
    assert "Tainted rows are drawn" in chart.caption
    assert "middle: 5.00 ms, 60.0 %, on the front" in chart.alt


def test_without_a_row_that_counts_there_is_no_front() -> None:
    chart = _tradeoff([_point("busy", 2.0, 40.0, counts=False)])
    assert chart.caption == "Every row is tainted, so no Pareto front is drawn."


def test_across_models_only_the_front_is_named() -> None:
    with drawing():
        chart = tradeoff(
            POINTS,
            looks(["ort_cpu"]),
            key="k",
            title="t",
            score_label="mAP (%)",
            front_labels_only=True,
        )
    named = {point.label for point in POINTS} & set(_texts(chart))
    assert named == {"quick", "middle", "best"}
    assert "Only these are named." in chart.caption
    assert "worse: 6.00 ms" in chart.alt


def test_a_label_goes_where_it_cannot_be_taken_for_a_neighbours() -> None:
    with drawing():
        _, axes = new_figure(3.0, left=0.5, right=0.1, top=0.1, bottom=0.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        label = "between the two"
        place(axes, [Label(text=label, x=0.3, y=0.5)], unnamed=[(0.62, 0.5)])
        drawn = next(text for text in axes.texts if text.get_text() == label)
        width, _ = text_size(axes.figure, label, SMALL_PT)
        middle, _ = axes.transData.transform(drawn.get_position())
        own, _ = axes.transData.transform((0.3, 0.5))
        other, _ = axes.transData.transform((0.62, 0.5))
    gap_to_own = max(0.0, abs(middle - own) - width / 2)
    gap_to_other = max(0.0, abs(middle - other) - width / 2)
    assert gap_to_own < gap_to_other


def test_svg_is_small_themed_and_has_ids_of_its_own() -> None:
    chart = _tradeoff(POINTS)
    assert not any(paint.stand_in in chart.svg for paint in PAINTS)
    assert "var(--chart-ink, #1f2328)" in chart.svg
    assert "font-family" not in chart.svg
    assert "<style" not in chart.svg
    ids = re.findall(r' id="([^"]*)"', chart.svg)
    assert ids
    assert len(ids) == len(set(ids))
    assert all(name.startswith("k-") for name in ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', chart.svg))
    assert used <= set(ids)
    assert len(chart.svg) < 40_000


def test_drawing_twice_gives_the_same_text() -> None:
    assert _tradeoff(POINTS).svg == _tradeoff(POINTS).svg


@pytest.mark.parametrize("name", ["$x^2$", "<b>&amp;", "a -- b", "漢字", "%(x)s {y}"])
def test_names_are_shown_as_they_are(name: str) -> None:
    assert name in _texts(_tradeoff([_point(name, 3.0, 50.0)]))


def test_leaves_matplotlib_as_it_was() -> None:
    mpl = require("matplotlib", extra="report")
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31.0, "axes.grid": False}):
        first = _tradeoff(POINTS).svg
    assert dict(mpl.rcParams) == before
    assert first == _tradeoff(POINTS).svg


def _overlaps(boxes: Sequence[Box]) -> bool:
    return any(a.overlap(b) > 0 for a, b in combinations(boxes, 2))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=14),
    st.integers(1, 25),
)
def test_labels_never_cover_each_other_or_leave_the_chart(
    spots: list[tuple[float, float]], length: int
) -> None:
    with drawing():
        figure, axes = new_figure(3.0, left=0.5, right=0.1, top=0.1, bottom=0.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        labels = [Label(text="x" * length, x=x, y=y) for x, y in spots]
        homeless = place(axes, labels)
        drawn = [text for text in axes.texts if text.get_text() == "x" * length]
        width, height = text_size(figure, "x" * length, SMALL_PT)
        boxes = []
        for text in drawn:
            x, y = axes.transData.transform(text.get_position())
            boxes.append(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        area = axes.get_window_extent()
    assert len(drawn) + homeless == len(labels)
    assert not _overlaps(boxes)
    frame = Box(area.x0 - 1, area.y0 - 1, area.x1 + 1, area.y1 + 1)
    assert all(box.within(frame) for box in boxes)


def test_a_label_without_room_is_counted() -> None:
    crowd = [_point("a label that is far too long to fit " * 3, 3.0, 50.0)]
    assert "1 point has no room for a label" in _tradeoff(crowd).caption


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_spread_keeps_order_distance_and_limits(wanted: list[float]) -> None:
    placed = spread(wanted, gap=10, low=0, high=100)
    assert all(-1e-6 <= position <= 100 + 1e-6 for position in placed)
    ordered = sorted(placed)
    assert all(b - a >= 10 - 1e-6 for a, b in pairwise(ordered))
    ranks = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    assert [placed[i] for i in ranks] == ordered


def test_spread_moves_nothing_that_has_room() -> None:
    assert spread([10.0, 50.0, 90.0], gap=10, low=0, high=100) == [10.0, 50.0, 90.0]


def _line(label: str, one: float, two: float | None) -> Series:
    ms = {1: (one, one * 0.99, one * 1.01)}
    if two is not None:
        ms[2] = (two, two * 0.99, two * 1.01)
    return Series(label=label, series="ort_cpu", hollow=True, ms=ms)


def test_threads_name_each_line_and_say_what_threads_buy() -> None:
    with drawing():
        chart = scaling(
            [_line("fast", 10, 5), _line("flat", 9, 8.8), _line("single", 7, None)],
            looks(["ort_cpu"]),
            key="k",
            title="t",
        )
    assert {"fast", "flat", "single", "Threads"} <= set(_texts(chart))
    assert chart.caption == ("fast gains most from threads: 2.00× from 1 to 2. flat: 1.02×.")
    assert "single (1: 7.00 ms)" in chart.alt


def test_bars_carry_their_figures_with_units() -> None:
    with drawing():
        chart = sizes(
            [Bar(label="small", parts=(3.9,)), Bar(label="large", parts=(13.4,), hollow=True)],
            key="k",
            title="t",
        )
        times = split(
            [
                Bar(label="a", parts=(0.0, 1.0, 7.0, 2.0), mark=10.4),
                Bar(label="b", parts=(0.0, 0.0, 0.0, 0.0)),
            ],
            key="s",
            title="t",
        )
    assert {"small", "large", "3.90 MB", "13.4 MB"} <= set(_texts(chart))
    assert chart.caption.startswith("small is the smallest, 3.4× smaller than large.")
    assert {"a", "10.4 ms"} <= set(_texts(times))
    assert "a: pre-processing 1.00 ms, inference 7.00 ms, decode + NMS 2.00 ms" in times.alt
    assert "70 % of the sum in a" in times.caption


@pytest.mark.parametrize(("value", "shown"), [(10.0, "10"), (0.5, "0.5"), (1500.0, "1,500")])
def test_ticks_have_no_trailing_zeros(value: float, shown: str) -> None:
    assert tick(value) == shown
