"""`detbench verify`: an edited figure is named, in a record, in a report and in a pasted table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness import accuracy, results
from harness.cli import main
from harness.commands.report import write
from harness.detections import Found, load, save
from harness.interfaces import Detections
from harness.records import Measurement, RunRecord
from harness.results import RunFolder
from tests.report_runs import MB2
from tests.run_folders import write_boxes, write_run

ACCURACY = f"{MB2}-onnx_int8-accuracy-t1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "results", models=[MB2])


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, which is made once."""
    run = write_run(tmp_path_factory.mktemp("verify") / "results", models=[MB2])
    write([run], run, "detbench: default", pictures=False)
    return run


def _verify(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def _rewrite(run: Path, name: str, change: Callable[[Measurement], Measurement]) -> None:
    """Change a record and seal it again, as somebody would who knows how."""
    folder = RunFolder(run.parent.parent, run.parent.name, run.name)
    record = results.read_sealed(folder.cell_path(name), RunRecord)
    changed = tuple(change(m) for m in record.measurements)
    folder.write_record(msgspec.structs.replace(record, measurements=changed, digest=None))


def test_records_as_they_were_written_hold(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = _verify(capsys, run)
    assert code == 0, text
    assert int(re.findall(r"([\d,]+) figures", text)[0].replace(",", "")) > 50
    assert "0 differ" in text
    assert "scores not computed again: the detections" in text


def test_an_edited_record_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "cells" / f"{MB2}-onnx_int8-latency-t1.json"
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 2.0', 1))
    code, text = _verify(capsys, run)
    assert code == 1
    assert f"{path} was edited after it was written" in text


def test_a_figure_that_was_sealed_again_does_not_follow_from_its_samples(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def better(m: Measurement) -> Measurement:
        wrong = m.metric == "latency.inference" and m.value is not None
        return msgspec.structs.replace(m, value=(m.value or 0) * 0.9) if wrong else m

    _rewrite(run, f"{MB2}-onnx_int8-latency-t2", better)
    code, text = _verify(capsys, run, "--json")
    assert code == 1
    (problem,) = json.loads(text)["problems"]
    assert f"{MB2}-onnx_int8-latency-t2.json" in problem["where"]
    assert problem["what"].startswith("latency.inference says ")


def test_samples_without_a_figure_and_the_value_of_a_first_round_hold(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def merged(m: Measurement) -> Measurement:
        """As a cell of several rounds has them, see `harness.rounds.merge`."""
        if m.metric.startswith("parity."):
            both = (m.value or 0.0, (m.value or 0.0) + 1)
            return msgspec.structs.replace(m, samples=both, conditions={"rounds": [1, 1]})
        if m.metric == "latency.warmup_inference":
            return msgspec.structs.replace(m, conditions={"rounds": [len(m.samples)]})
        return m

    name = f"{MB2}-onnx_int8-latency-t1"
    _rewrite(run, name, merged)
    code, text = _verify(capsys, run)
    assert code == 0, text
    assert "does not say how" not in text

    def other(m: Measurement) -> Measurement:
        wrong = m.metric == "parity.logits.sqnr_db"
        return msgspec.structs.replace(m, value=m.samples[1]) if wrong else m

    _rewrite(run, name, other)
    code, text = _verify(capsys, run)
    assert code == 1
    assert "parity.logits.sqnr_db says" in text


def _scored(run: Path) -> Found:
    """Real detections for the int8 cell, and its scores computed from them."""
    path = write_boxes(run, frozenset({1, 2}))
    found = load(path)
    scores = {
        m.metric: m
        for m in accuracy.evaluate(
            found.truths or [], found.detections, found.sizes or [], ("background", "circle")
        )
    }
    _rewrite(run, ACCURACY, lambda m: scores.get(m.metric, m))
    return found


def test_scores_are_computed_again_from_the_detections(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _scored(run)
    before = _verify(capsys, run)
    assert before[0] == 0, before[1]
    worse = [Detections(d.boxes[:0], d.labels[:0], d.scores[:0]) for d in found.detections]
    folder = RunFolder(run.parent.parent, run.parent.name, run.name)
    save(folder.detections_path(ACCURACY), found._replace(detections=worse))
    code, text = _verify(capsys, run)
    assert code == 1
    assert f"{ACCURACY}.json: accuracy.coco_map says" in text


def test_other_evidence_than_the_record_names_is_found(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_boxes(run, frozenset())
    folder = RunFolder(run.parent.parent, run.parent.name, run.name)
    record = results.read_sealed(folder.cell_path(ACCURACY), RunRecord)
    name = path.relative_to(run).as_posix()
    folder.write_record(msgspec.structs.replace(record, evidence={name: "0" * 64}, digest=None))
    code, text = _verify(capsys, run)
    assert code == 1
    assert f"{name} has SHA-256" in text


def test_different_artifacts_under_one_name_are_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(run.parent.parent, run.parent.name, run.name)
    record = results.read_sealed(folder.cell_path(ACCURACY), RunRecord)
    folder.write_record(msgspec.structs.replace(record, artifact_sha256="e" * 64, digest=None))
    code, text = _verify(capsys, run)
    assert code == 1
    assert "under the same name" in text
    assert "eeeeeeeeeeee…" in text


def test_a_report_follows_from_its_records(
    reported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = _verify(capsys, reported)
    assert code == 0, text


@pytest.mark.parametrize("kind", ["html", "md"])
def test_one_edited_figure_of_a_report_is_named(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    text = (reported / f"report.{kind}").read_text(encoding="utf-8")
    assert "13.2" in text
    page = tmp_path / f"edited.{kind}"
    page.write_text(text.replace("13.2", "11.9", 1), encoding="utf-8")
    code, said = _verify(capsys, page, "--results", reported.parent.parent)
    assert code == 1
    assert "11.9" in said
    assert "13.2" in said
    assert "line " in said


def _pasted(reported: Path) -> tuple[list[str], str]:
    """The table of a report without some of its columns and rows, and its binding."""
    lines = (reported / "report.md").read_text(encoding="utf-8").splitlines()
    comment = next(line for line in lines if line.startswith("<!-- detbench"))
    table = lines[: lines.index(comment)]
    first = next(i for i, line in enumerate(table) if line.startswith("| Export"))
    rows = [line for line in table[first:] if line.startswith("|")]
    heads = [cell.strip() for cell in rows[0].strip("|").split("|")]
    kept = [
        heads.index(head) for head in ("Export", "Runner", "Threads", "mAP, %", "Inference p50, ms")
    ]
    cut = [[line.strip("|").split("|")[i].strip() for i in kept] for line in rows]
    return ["| " + " | ".join(cells) + " |" for cells in [*cut[:2], *cut[3:6]]], comment


def test_a_pasted_table_is_held_to_the_records_by_its_comment(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, comment = _pasted(reported)
    readme = tmp_path / "README.md"
    readme.write_text("\n".join(["# Mine", "", *rows, "", comment, ""]), encoding="utf-8")
    where = ("--results", reported.parent.parent)
    code, text = _verify(capsys, readme, *where)
    assert code == 0, text
    assert "15 figures" in text
    cells = rows[3].split("|")
    cells[4] = cells[4].replace(".", ".9", 1)
    rows[3] = "|".join(cells)
    readme.write_text("\n".join(["# Mine", "", *rows, "", comment, ""]), encoding="utf-8")
    code, text = _verify(capsys, readme, *where)
    assert code == 1
    assert "README.md, line 6" in text
    assert "mAP, % says" in text
    rows[4] = rows[4].replace("onnx", "annx", 1)
    readme.write_text("\n".join([*rows, comment]), encoding="utf-8")
    assert "follows from the records" in _verify(capsys, readme, *where)[1]


def test_other_records_than_those_that_were_published_are_found(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "results", models=[MB2], slower=1.0001)
    code, text = _verify(capsys, reported / "report.md", "--results", other.parent.parent)
    assert code == 1
    assert "is bound to 15 records with digest" in text or "is bound to" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# nothing here", "holds no figure that is bound"),
        ("<!-- detbench {broken} -->", "comment that binds a table"),
        (
            '<!-- detbench {"runs": ["no/where"], "records": 1, "sha256": "", "title": "",'
            ' "margin": 0} -->',
            "which is not below",
        ),
    ],
)
def test_a_page_without_a_usable_binding_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    code, text = _verify(capsys, page)
    assert code == 2
    assert said in text
