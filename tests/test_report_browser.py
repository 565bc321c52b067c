"""The page in headless Chromium: it opens without a complaint, sorts, filters, fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from harness.report import build_report
from tests.evidence_runs import run_with_evidence
from tests.report_runs import EVIL, made_up_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
)
RESULT = "probe-result"
Browse = Callable[..., tuple[str, list[str]]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    return build_report([made_up_run()], out, title="Made-up run").html


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Opens a file, with ``#hash`` if given; answers the page's final HTML and console messages."""

    def opened(path: Path, anchor: str = "", *flags: str) -> tuple[str, list[str]]:
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags]
        done = subprocess.run(
            [*command, "--dump-dom", f"{path.as_uri()}{anchor}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return opened


def _column(html: str, key: str) -> list[str]:
    """What the visible rows of the results say in one column, notes left out."""
    table = re.search(r'<table id="table-results".*?</table>', html, flags=re.DOTALL)
    assert table
    keys = re.findall(r'<th[^>]*data-key="([^"]*)"', table.group())
    rows = re.findall(r"<tr(?![^>]* hidden)[^>]*>(.*?)</tr>", table.group(), flags=re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.DOTALL) for row in rows]
    found = [row[keys.index(key)] for row in cells if row]
    bare = (re.sub(r"<small.*?</small>", "", cell, flags=re.DOTALL) for cell in found)
    return [unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in bare]


def _numbers(shown: list[str]) -> list[float]:
    return [float(text.replace(",", "").replace("−", "-")) for text in shown]


def _probe(page: Path, folder: Path, script: str) -> Path:
    """A copy of the page that runs ``script`` and keeps what it returns; its policy is lifted."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    keep = (
        "<script>addEventListener('load', () => {"
        f" const kept = document.createElement('pre'); kept.id = '{RESULT}';"
        f" kept.textContent = JSON.stringify((() => {{ {script} }})());"
        " document.body.append(kept); });</script></body>"
    )
    copy = folder / "probe.html"
    copy.write_text(text.replace("</body>", keep), encoding="utf-8")
    return copy


def _answer(html: str) -> object:
    found = re.search(rf'<pre id="{RESULT}">(.*?)</pre>', html, flags=re.DOTALL)
    assert found
    return json.loads(unescape(found.group(1)))


def test_the_test_would_notice_an_error(browse: Browse, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><title>t</title><script>undefined.x</script>")
    assert browse(broken)[1]


def test_opens_without_a_word_on_the_console(browse: Browse, page: Path) -> None:
    html, messages = browse(page)
    assert messages == []
    assert "22 of 22 rows" in _text(html)
    assert html.count('<button type="button"') > 20


def _text(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", html))


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with pictures."""
    run = run_with_evidence(tmp_path_factory.mktemp("evidence"))
    return build_report([run], tmp_path_factory.mktemp("report"), title="Made-up run").html


@pytest.mark.parametrize("dark", [False, True])
def test_pictures_are_drawn_and_text_beside_them_has_contrast(
    browse: Browse, looked: Path, tmp_path: Path, dark: bool
) -> None:
    script = """
        const photos = [...document.querySelectorAll('.picture image, .picture use')];
        const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
        const parse = (color) => {
          canvas.clearRect(0, 0, 1, 1);
          canvas.fillStyle = color;
          canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        const light = (color) => parse(color).map((c) => c / 255)
          .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const ratios = [...document.querySelectorAll('.matrix td.num')].map((cell) => {
          const style = getComputedStyle(cell);
          const pair = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
          return (pair[0] + 0.05) / (pair[1] + 0.05);
        });
        return [
          photos.length,
          photos.every((one) => one.getBoundingClientRect().width > 100),
          Math.min(...ratios),
        ];
    """
    flag = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    html, messages = browse(_probe(looked, tmp_path, script), "", flag)
    assert messages == []
    answer = _answer(html)
    assert isinstance(answer, list)
    number, drawn, contrast = answer
    assert number == 15
    assert drawn
    assert contrast >= 4.5


def test_shows_every_planned_cell(browse: Browse, page: Path) -> None:
    html, _ = browse(page)
    planned = {item["id"] for item in made_up_run().run["plan"]}
    told = {name for names in re.findall(r'data-cell="([^"]*)"', html) for name in names.split()}
    assert told == planned
    assert EVIL not in html


@pytest.mark.parametrize("key", ["p50", "size", "map", "change"])
def test_sorts_by_the_address_with_blanks_last(browse: Browse, page: Path, key: str) -> None:
    for sign, anchor in ((1, f"#sort={key}"), (-1, f"#sort=-{key}")):
        html, messages = browse(page, anchor)
        shown = [text for text in _column(html, key) if text != "reference"]
        figures = [text for text in shown if text != "–"]
        assert len(figures) > 5
        assert shown[len(figures) :] == ["–"] * (len(shown) - len(figures))
        numbers = _numbers(figures)
        assert numbers == sorted(numbers, reverse=sign < 0)
        direction = "ascending" if sign > 0 else "descending"
        assert re.search(rf'data-key="{key}"[^>]*aria-sort="{direction}"', html)
        assert len(re.findall(r"<th[^>]*aria-sort=", html)) == 1
        assert messages == []


def test_filters_by_the_address(browse: Browse, page: Path) -> None:
    html, _ = browse(page, "#filter=int8+ort&sort=-threads")
    assert set(_column(html, "export")) == {"onnx_int8"}
    assert _column(html, "threads") == ["2", "2", "1", "1"]
    assert "4 of 22 rows" in _text(html)


def test_an_unknown_column_in_the_address_changes_nothing(browse: Browse, page: Path) -> None:
    html, messages = browse(page, "#sort=nonsense")
    assert messages == []
    assert _column(html, "export")[0] == "torch_float"


def test_a_click_sorts_and_a_second_one_turns_round(
    browse: Browse, page: Path, tmp_path: Path
) -> None:
    script = """
        const head = document.querySelector('#table-results th[data-key="p50"]');
        const first = () => document.querySelector('#table-results tbody tr').cells[2].textContent;
        const seen = [];
        for (const target of [head.querySelector('button'), head]) {
          target.click();
          seen.push([head.getAttribute('aria-sort'), first(), location.hash]);
        }
        return seen;
    """
    html, _ = browse(_probe(page, tmp_path, script))
    assert _answer(html) == [
        ["ascending", "ort_cpu", "#sort=p50"],
        ["descending", "torch_cpu", "#sort=-p50"],
    ]


def test_the_keyboard_reaches_every_control(browse: Browse, page: Path, tmp_path: Path) -> None:
    script = """
        const heads = [...document.querySelectorAll('th')];
        const buttons = heads.map((head) => head.querySelector('button'));
        return [
          buttons.every((button) => button && button.tabIndex === 0),
          buttons.every((button) => button.getAttribute('aria-label').startsWith('Sort by ')),
          document.querySelector('#filter').labels[0].textContent,
          [...document.querySelectorAll('.table-wrap')].every((wrap) => wrap.tabIndex === 0),
        ];
    """
    html, _ = browse(_probe(page, tmp_path, script))
    assert _answer(html) == [True, True, "Filter rows", True]


def test_typing_filters(browse: Browse, page: Path, tmp_path: Path) -> None:
    script = """
        const input = document.querySelector('#filter');
        input.value = 'tainted';
        input.dispatchEvent(new Event('input'));
        return document.querySelector('.controls output').value;
    """
    html, _ = browse(_probe(page, tmp_path, script))
    assert _answer(html) == "1 of 22 rows"


def test_links_keep_the_filter_unless_it_hides_their_row(
    browse: Browse, page: Path, tmp_path: Path
) -> None:
    script = """
        const input = document.querySelector('#filter');
        const shown = () => document.querySelector('.controls output').value;
        const follow = (hash) => {
          history.replaceState(null, '', hash);
          dispatchEvent(new Event('hashchange'));
          return [input.value, shown()];
        };
        input.value = 'tainted';
        input.dispatchEvent(new Event('input'));
        const hidden = document.querySelector('#table-results tr[hidden]').id;
        return [follow('#method'), follow('#' + hidden)];
    """
    html, _ = browse(_probe(page, tmp_path, script))
    assert _answer(html) == [["tainted", "1 of 22 rows"], ["", "22 of 22 rows"]]


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_only_tables_and_charts_scroll_sideways(
    browse: Browse, page: Path, tmp_path: Path, width: int
) -> None:
    shutil.copy(page, tmp_path / "inner.html")
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        '<!doctype html><title>t</title><iframe src="inner.html" style="border:0"'
        f' width="{width}" height="800"></iframe><pre id="{RESULT}"></pre><script>'
        "addEventListener('load', () => { const inner = frames[0].document.documentElement;"
        f" document.getElementById('{RESULT}').textContent ="
        " JSON.stringify([inner.clientWidth, inner.scrollWidth]); });</script>"
    )
    html, _ = browse(wrapper, "", "--allow-file-access-from-files")
    answer = _answer(html)
    assert isinstance(answer, list)
    inner, needed = answer
    assert inner in range(width - 20, width + 1)
    assert needed <= inner


def test_recommended_rows_fit_a_usual_screen(browse: Browse, page: Path, tmp_path: Path) -> None:
    script = """
        const wrap = document.querySelector('#table-results').parentElement;
        return [wrap.clientWidth, wrap.scrollWidth];
    """
    html, _ = browse(_probe(page, tmp_path, script), "", "--window-size=1440,900")
    answer = _answer(html)
    assert isinstance(answer, list)
    assert answer[1] <= answer[0]


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_in_both_themes(
    browse: Browse, page: Path, tmp_path: Path, dark: bool
) -> None:
    script = """
        const parse = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = (color) => parse(color).map((c) => c / 255)
          .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const back = (node) => {
          for (let here = node; here; here = here.parentElement) {
            const color = getComputedStyle(here).backgroundColor;
            if (!color.startsWith('rgba(0, 0, 0, 0')) return color;
          }
          return 'rgb(255, 255, 255)';
        };
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const worst = (nodes, property) => Math.min(...[...nodes].map((node) =>
          ratio(light(getComputedStyle(node)[property]), light(back(node)))));
        return [
          worst(document.querySelectorAll('p, dt, dd, td, th, small, .mark, a, h2, li'), 'color'),
          worst(document.querySelectorAll('svg text'), 'fill'),
          getComputedStyle(document.body).backgroundColor,
        ];
    """
    flag = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    html, _ = browse(_probe(page, tmp_path, script), "", flag)
    answer = _answer(html)
    assert isinstance(answer, list)
    text, drawn, background = answer
    assert text >= 4.5
    assert drawn >= 4.5
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) is dark
