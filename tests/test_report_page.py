"""The HTML page: one file that needs nothing, well-formed, safe, and with every cell in it once."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from harness import extras
from harness.errors import MissingExtra, ResultsError
from harness.registry import ROOT
from harness.report import RunData, build_report
from harness.stats import needed
from tests.report_runs import EVIL, NOT_RUN, made_up_run

VOID = {"meta", "br", "wbr", "input", "link", "img", "hr", "use", "path"}


class Element:
    """One element with its attributes and the text within."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element] = []
        self.text = ""

    def find(self, tag: str) -> list[Element]:
        found = [child for child in self.children if child.tag == tag]
        return found + [item for child in self.children for item in child.find(tag)]

    def every(self) -> list[Element]:
        return [self, *(item for child in self.children for item in child.every())]

    def content(self) -> str:
        return self.text


class Tree(HTMLParser):
    """The page as elements; complains about what is closed in the wrong order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.here = Element("root", {}, None)
        self.wrong: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs}, self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs}, self.here)
        self.here.children.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if self.here.tag != tag or self.here.parent is None:
            self.wrong.append(f"</{tag}> closes <{self.here.tag}>")
            return
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        element: Element | None = self.here
        while element is not None:
            element.text += data
            element = element.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report")
    return build_report([made_up_run()], out, title="Made-up run").html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(source: str) -> Tree:
    return Tree(source)


def _build(runs: list[RunData], out: Path) -> str:
    return build_report(runs, out, title="t").html.read_text(encoding="utf-8")


def test_is_well_formed(tree: Tree) -> None:
    assert tree.wrong == []
    assert tree.here is tree.root


def test_ids_are_unique_and_every_inner_link_leads_somewhere(tree: Tree) -> None:
    elements = tree.root.every()
    ids = [e.attributes["id"] for e in elements if "id" in e.attributes]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    links = {e.attributes["href"] for e in elements if "href" in e.attributes}
    assert links
    assert all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} <= set(ids)
    named = [e.attributes.get("aria-labelledby", "").split() for e in elements]
    assert {name for names in named for name in names} <= set(ids)


def test_loads_nothing_from_anywhere(tree: Tree, source: str) -> None:
    policy = next(
        e.attributes["content"]
        for e in tree.root.find("meta")
        if e.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    assert "script-src 'sha256-" in policy
    assert not any("src" in element.attributes for element in tree.root.every())
    assert not tree.root.find("link")
    assert not tree.root.find("img")
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", source))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert "@import" not in source


def test_headings_do_not_skip_a_level(tree: Tree) -> None:
    assert tree.root.find("html")[0].attributes["lang"] == "en"
    levels = [int(e.tag[1]) for e in tree.root.every() if re.fullmatch(r"h[1-6]", e.tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_as_many_cells_as_columns(tree: Tree) -> None:
    tables = tree.root.find("table")
    assert [table.attributes["data-key"] for table in tables] == [
        "results",
        "accuracy",
        "latency",
        "advice",
        "threads",
        "scenarios",
        "parity",
        "artifacts",
    ]
    for table in tables:
        assert table.find("caption")[0].content().strip()
        heads = table.find("th")
        assert all(head.attributes["scope"] == "col" for head in heads)
        for row in table.find("tbody")[0].find("tr"):
            assert len(row.find("td")) == len(heads)


def test_charts_say_in_words_what_they_show(tree: Tree) -> None:
    drawings = tree.root.find("svg")
    assert len(drawings) == 11
    for drawing in drawings:
        assert drawing.attributes["role"] == "img"
        assert drawing.find("title")[0].content()
        assert "onnx_int8" in drawing.find("desc")[0].content()
    figures = tree.root.find("figure")
    assert all(figure.find("figcaption")[0].content().strip() for figure in figures)


def test_every_planned_cell_is_accounted_for_exactly_once(tree: Tree) -> None:
    planned = sorted(item["id"] for item in made_up_run().run["plan"])
    told = [
        name
        for element in tree.root.every()
        for name in element.attributes.get("data-cell", "").split()
    ]
    assert sorted(told) == planned
    said = next(e for e in tree.root.every() if e.attributes.get("id") == "accounting").content()
    assert said == (
        "42 planned cells: 30 measured (of which 1 tainted), 3 unsupported, 3 export-failed,"
        " 3 parity-failed, 1 timeout, 1 crashed, 1 not run."
    )


def test_every_row_is_in_the_table_of_results(tree: Tree) -> None:
    rows = _results(tree)
    assert len(rows) == 22
    planned = [item for item in made_up_run().run["plan"] if item["cell"]["measure"] == "latency"]
    kept = [item for item in planned if item["cell"]["exporter"] != "torch_int8"]
    assert len(rows) == len(kept) - 2  # tvm_dense of the first model has no figure at all


def _results(tree: Tree) -> list[dict[str, str]]:
    table = next(t for t in tree.root.find("table") if t.attributes["data-key"] == "results")
    keys = [head.attributes["data-key"] for head in table.find("th")]
    lines = table.find("tbody")[0].find("tr")
    return [
        dict(zip(keys, (cell.content().strip() for cell in line.find("td")), strict=True))
        for line in lines
    ]


def _row(tree: Tree, model: str, export: str, threads: str) -> dict[str, str]:
    rows = _results(tree)
    found = [
        row
        for row in rows
        if row["model"].startswith(model)
        and row["export"] == export
        and row["threads"].startswith(threads)
    ]
    assert len(found) == 1
    return found[0]


def test_an_unlicensed_percentile_is_blank_and_says_why(tree: Tree) -> None:
    row = _row(tree, "mb2", "tflite_int8", "1")
    assert row["p90"] == f"–needs {needed(90)}, has 20"
    assert row["p50"].startswith("13.2")


def test_marks_are_words(tree: Tree) -> None:
    assert "unstable" in _row(tree, "mb2", "torch_float", "1")["marks"]
    assert "recommended" in _row(tree, "mb2", "onnx_int8", "2")["marks"]
    assert _row(tree, "etiny", "tflite_float", "1")["marks"].startswith("tainted latency")
    assert "calibration leak" in _row(tree, "etiny", "tflite_int8", "1")["marks"]


def test_marks_lead_to_their_reasons(tree: Tree) -> None:
    reasons = {
        "etinynet_ssd_lite-tflite_float-latency-t1": "other processes used 80 % of a core",
        "etinynet_ssd_lite-tflite_int8-accuracy-t1": "3 scored images also chose its ranges",
    }
    links = {e.attributes["href"] for e in tree.root.find("a") if e.content() == "why"}
    assert links == {f"#cell-1-{name}" for name in reasons}
    lines = {e.attributes["id"]: e.content() for e in tree.root.every() if "id" in e.attributes}
    for name, reason in reasons.items():
        assert reason in lines[f"cell-1-{name}"]


def test_a_half_measured_row_links_to_the_reason(tree: Tree, source: str) -> None:
    row = _row(tree, "mb2", "tflite_float", "2")
    assert row["map"].startswith("61.2")
    assert row["p50"] == "–timeout"
    assert 'href="#cell-1-mb2_ssd_lite-tflite_float-latency-t2"' in source


def test_text_of_records_is_escaped(source: str, tree: Tree) -> None:
    assert EVIL not in source
    assert len(tree.root.find("script")) == 1
    assert EVIL in tree.root.content()
    assert "stopped before it ended" in tree.root.content()
    assert NOT_RUN[1] in tree.root.content()


def test_escapes_names_in_charts_and_headings(tmp_path: Path) -> None:
    name = "a$b$<i>&amp;--></svg><script>x</script>"
    run = made_up_run(models=[name])
    text = build_report([run], tmp_path, title=name).html.read_text(encoding="utf-8")
    tree = Tree(text)
    assert tree.wrong == []
    assert len(tree.root.find("script")) == 1
    assert not tree.root.find("i")
    assert tree.root.find("h1")[0].content() == name


def test_a_smoke_run_says_so_loudly(tmp_path: Path) -> None:
    text = _build([made_up_run(tier="smoke")], tmp_path)
    tree = Tree(text)
    warnings = [e.content() for e in tree.root.find("p") if e.attributes.get("class") == "warning"]
    assert warnings[0].startswith("SMOKE RUN (bench-a)")
    assert all("smoke" in row["marks"] for row in _results(tree) if row["p50"][0] != "–")
    assert "No recommendation" in tree.root.content()


def test_several_machines_keep_their_rows_apart(tmp_path: Path) -> None:
    runs = [made_up_run(), made_up_run(machine="pi-4", slower=5.0)]
    tree = Tree(_build(runs, tmp_path))
    rows = _results(tree)
    assert Counter(row["machine"] for row in rows) == {"bench-a": 22, "pi-4": 22}
    assert len(tree.root.find("article")) >= 4
    ids = [e.attributes["id"] for e in tree.root.every() if "id" in e.attributes]
    assert len(ids) == len(set(ids))


def test_no_run_at_all_is_a_page_too(tmp_path: Path) -> None:
    tree = Tree(_build([], tmp_path))
    assert tree.wrong == []
    assert "No run was given" in tree.root.content()
    assert "Nothing was planned" in tree.root.content()


def test_a_run_in_which_nothing_worked_says_what_to_do(tmp_path: Path) -> None:
    run = made_up_run()
    failed = [
        msgspec.structs.replace(
            record, state="crashed", error="out of memory", measurements=(), artifact_id=None
        )
        for record in run.records
    ]
    tree = Tree(_build([dataclasses.replace(run, records=failed)], tmp_path))
    assert "No cell was measured." in tree.root.content()
    assert "out of memory" in tree.root.content()
    told = [e for e in tree.root.every() if "data-cell" in e.attributes]
    assert len(told) == 42


def test_a_run_that_was_not_started_lists_its_plan(tmp_path: Path) -> None:
    run = dataclasses.replace(made_up_run(), records=[], artifacts={}, machine={})
    tree = Tree(_build([run], tmp_path))
    assert "42 planned cells: 0 measured, 42 not run." in tree.root.content()


def test_says_how_to_install_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: not module.startswith("matplotlib"))
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[report\]'"):
        build_report([made_up_run()], tmp_path, title="t")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ResultsError, match="cannot be written"):
        build_report([made_up_run()], blocked / "report", title="t")


def test_importing_the_report_loads_no_drawing_library() -> None:
    code = (
        "import sys, harness.report;"
        "print([m for m in ('jinja2', 'markupsafe', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
