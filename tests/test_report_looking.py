"""What a report shows of single images: the right ones, small, from nowhere else, or a reason."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import re
import shutil
from collections import Counter
from html import unescape
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from harness import report as reporting
from harness.accuracy.voc import voc_map
from harness.detections import load
from harness.interfaces import Detections, Truth
from harness.report import RunData, build_report
from harness.report.chart_curves import class_curves
from harness.report.join import join
from harness.report.pictures import LONGEST_PX, MOST_PICTURE_BYTES, Mark, draw, photo
from harness.report.plates import changed_marks, telling
from harness.report.seen import Seen, see
from tests.evidence_runs import IMAGES, LABELS, run_with_evidence
from tests.test_report_page import Tree


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return run_with_evidence(tmp_path_factory.mktemp("evidence"))


def _html(run: RunData, out: Path, *, pictures: bool = True) -> str:
    made = build_report([run], out, title="t", pictures=pictures)
    return made.html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(run: RunData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _html(run, tmp_path_factory.mktemp("report"))


def _text(source: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", source)).split())


def _pictures(source: str) -> list[bytes]:
    return [
        base64.b64decode(data)
        for data in re.findall(r'href="data:image/jpeg;base64,([^"]*)"', source)
    ]


def test_the_page_is_whole_and_needs_nothing_from_anywhere(source: str) -> None:
    tree = Tree(source)
    assert tree.wrong == []
    elements = tree.root.every()
    ids = [e.attributes["id"] for e in elements if "id" in e.attributes]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    links = [e.attributes["href"] for e in elements if "href" in e.attributes]
    inner = {link[1:] for link in links if not link.startswith("data:image/jpeg;base64,")}
    assert inner <= set(ids)
    assert set(re.findall(r"https?://[^\s\"'<)]+", source)) == {"http://www.w3.org/2000/svg"}
    assert "img-src data:;" in source


def test_figures_are_those_of_the_planted_detections(source: str) -> None:
    # 21 objects; 5 images lose their last one and gain a ghost
    text = _text(source)
    assert "onnx_int8 on ort_cpu finds 16 of 21 objects and shows 5 false positives" in text
    assert "5 where nothing is" in text
    assert "16 matched (0 moved, 0 rescored), 5 lost, 5 new" in text


def test_the_table_of_fidelity_names_counts_and_classes(source: str) -> None:
    table = next(
        t for t in Tree(source).root.find("table") if t.attributes.get("id") == "table-fidelity"
    )
    rows = [
        [cell.content().strip() for cell in row.find("td")]
        for row in table.find("tbody")[0].find("tr")
    ]
    line = next(row for row in rows if row[0] == "onnx_int8")
    assert line[4:] == [
        *("16", "5", "5", "0", "0"),
        "5of 6",
        "cat (2 lost, 5 new), dog & <b>bird</b> (3 lost)",
    ]
    faithful = next(row for row in rows if row[0] == "onnx_float")
    assert faithful[2].startswith("100.0")
    assert faithful[4:9] == ["21", "0", "0", "0", "0"]


def test_shows_the_worst_images_and_no_image_without_mistakes(run: RunData) -> None:
    seen = _seen(run, "onnx_int8")
    chosen = telling(seen)
    assert [place for place, _ in chosen] == [1, 2, 3, 4, 5]
    assert {why for _, why in chosen} == {"2 mistakes"}


def _seen(run: RunData, exporter: str) -> Seen:
    row = next(row for row in join([run]).rows if row.export == exporter)
    seen = see([run], row)
    assert seen is not None
    return seen


def test_pictures_are_small_and_each_is_embedded_once(source: str) -> None:
    pictures = _pictures(source)
    assert len(pictures) == 10  # five with mistakes, five that changed
    assert (
        len(re.findall(r'<use href="#[^"]*-photo"', source)) == 5
    )  # the second side of each changed one
    for data in pictures:
        assert len(data) <= MOST_PICTURE_BYTES
        assert max(Image.open(io.BytesIO(data)).size) <= LONGEST_PX


def test_names_of_files_and_classes_are_text_and_nothing_else(source: str) -> None:
    assert "<b>bird</b>" not in source
    assert "dog &amp; &lt;b&gt;bird&lt;/b&gt;" in source
    assert "field-5-ü" in source


def test_no_picture_is_in_a_report_without_pictures(run: RunData, tmp_path: Path) -> None:
    source = _html(run, tmp_path, pictures=False)
    assert _pictures(source) == []
    assert "Pictures are left out, as asked." in source
    assert "finds 16 of 21 objects" in _text(source)


def test_a_data_set_that_is_gone_is_said_and_the_rest_stays(tmp_path: Path) -> None:
    run = run_with_evidence(tmp_path / "made")
    shutil.rmtree(tmp_path / "made" / "photos")
    source = _html(run, tmp_path / "out")
    assert _pictures(source) == []
    assert "No pictures: data set" in source
    assert "does not exist" in source
    assert "finds 16 of 21 objects" in _text(source)


def test_a_picture_that_is_not_the_scored_one_is_not_shown(tmp_path: Path) -> None:
    run = run_with_evidence(tmp_path / "made")
    (path,) = (tmp_path / "made" / "photos").rglob("field-5-ü.*g")
    Image.new("RGB", (400, 200)).save(path)
    source = _html(run, tmp_path / "out")
    assert len(_pictures(source)) == 8
    assert "field-5-ü" not in source


def test_without_ground_truth_only_the_changes_are_shown(tmp_path: Path) -> None:
    source = _html(run_with_evidence(tmp_path / "made", labelled=False), tmp_path / "out")
    text = _text(source)
    assert "has no ground truth: only changes against float are shown" in text
    assert "16 matched (0 moved, 0 rescored), 5 lost, 5 new" in text
    assert len(_pictures(source)) == 5
    assert "Precision over recall" not in text
    assert "objects and shows" not in text


def test_what_another_machine_found_just_so_is_not_shown_twice(
    run: RunData, source: str, tmp_path: Path
) -> None:
    records = [msgspec.structs.replace(record, machine_id="bench-b") for record in run.records]
    other = dataclasses.replace(run, machine={**run.machine, "id": "bench-b"}, records=records)
    made = build_report([run, other], tmp_path, title="t").html.read_text(encoding="utf-8")
    assert len(_pictures(made)) == len(_pictures(source))
    assert _text(made).count("Precision over recall, by class") == 1
    assert "Found exactly what was found in" in _text(made)


def test_records_without_evidence_say_so(run: RunData, tmp_path: Path) -> None:
    source = _html(dataclasses.replace(run, folder=None), tmp_path)
    assert "No detections came with the records" in source


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    run = run_with_evidence(tmp_path / "made")
    for path in (tmp_path / "made" / "run" / "detections").glob("*.npz"):
        path.write_bytes(b"no zip")
    assert "cannot be read" in _html(run, tmp_path / "out")


def test_a_page_that_would_be_too_large_takes_fewer_pictures(
    run: RunData, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sorted(len(data) for data in _pictures(source))
    limit = len(source.encode()) - sizes[0]
    monkeypatch.setattr(reporting, "MOST_BYTES", limit)
    smaller = _html(run, tmp_path)
    assert len(smaller.encode()) <= limit
    assert len(_pictures(smaller)) == 8
    assert "Further pictures are left out" in smaller
    monkeypatch.setattr(reporting, "MOST_BYTES", 1)
    assert _pictures(_html(run, tmp_path)) == []


def test_curves_have_the_area_that_the_metric_gives(run: RunData) -> None:
    found = load(next((run.folder or Path()).glob("detections/*onnx_int8*.npz")))
    assert found.truths is not None
    curves = class_curves(found.truths, found.detections, None, LABELS)
    expected = voc_map(found.truths, found.detections, LABELS).per_class
    assert {curve.label: pytest.approx(curve.ap) for curve in curves} == expected
    assert sum(curve.objects for curve in curves) == 21
    assert len(found.names) == IMAGES


@pytest.mark.parametrize("seed", range(5))
def test_curves_equal_the_metric_on_random_detections(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(8):
        corners = rng.integers(0, 60, (7, 2))
        boxes = np.concatenate([corners, corners + rng.integers(10, 40, (7, 2))], 1)
        labels = rng.integers(1, 3, 7)
        flags = rng.random(7) < 0.2
        truths.append(Truth(boxes.astype(np.float32), labels, flags, np.zeros(7, np.bool_)))
        moved = boxes + rng.integers(-8, 8, boxes.shape)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = rng.random(7).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        found.append(Detections(moved.astype(np.float32)[order], labels[order], scores[order]))
    curves = class_curves(truths, found, found, LABELS)
    expected = voc_map(truths, found, LABELS).per_class
    assert {curve.label: pytest.approx(curve.ap, abs=1e-12) for curve in curves} == expected
    assert all(curve.parent_ap == curve.ap for curve in curves)


def test_changes_are_marked_on_their_own_side() -> None:
    def found(*rows: tuple[int, int, int, float]) -> Detections:
        boxes = np.array([[x, 0, x + side, side] for x, side, _, _ in rows], np.float32)
        kinds, scores = [row[2] for row in rows], [row[3] for row in rows]
        return Detections(boxes, np.array(kinds), np.array(scores, np.float32))

    before = found((0, 40, 1, 0.9), (100, 40, 1, 0.8), (200, 40, 2, 0.7), (300, 40, 2, 0.1))
    after = found((0, 40, 1, 0.91), (100, 40, 1, 0.4), (400, 40, 1, 0.5))
    left, right = changed_marks(before, after, LABELS)
    assert [(mark.style, mark.label) for mark in left] == [
        ("hit", ""),
        ("hit", "cat .80"),
        ("missed", f"{LABELS[2]} .70"),
    ]
    assert [(mark.style, mark.label) for mark in right] == [
        ("hit", ""),
        ("hit", "cat .40"),
        ("false", "cat .50"),
    ]
    assert left[1].said == "cat .80 rescored"
    assert right[2].said == "cat .50 new"


def test_labels_stay_in_the_picture_and_apart() -> None:
    kept = photo(np.zeros((100, 200, 3), np.uint8))
    assert kept is not None
    boxes = [(150.0, 0.0, 199.0, 30.0), (155.0, 2.0, 199.0, 40.0), (150.0, 90.0, 199.0, 99.0)]
    marks = [Mark(box=box, style="false", label="a long name", said="x") for box in boxes]
    svg = draw(kept, marks, key="k", first=True, alt="a")
    places = [tuple(map(int, m)) for m in re.findall(r'x="(\d+)" y="(\d+)">a long', svg)]
    assert len(places) == 3
    assert all(0 <= x <= 200 - 11 * 6 and 10 <= y <= 100 for x, y in places)
    rows = sorted(y for _, y in places)
    assert all(below - above >= 10 for above, below in itertools.pairwise(rows))


def test_a_picture_that_cannot_be_made_small_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report.pictures.MOST_PICTURE_BYTES", 10)
    assert photo(np.zeros((100, 200, 3), np.uint8)) is None
