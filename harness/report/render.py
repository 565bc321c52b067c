"""Content into templates. Text of records is escaped wherever it lands."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from harness.extras import require
from harness.report.page import Page
from harness.report.tables import Table, Value

HERE = Path(__file__).resolve().parent
MARKDOWN_HIDDEN = ("memory",)


def html(page: Page) -> str:
    """One page with everything in it. Its policy forbids the browser to load or send anything."""
    script, style = _asset("report.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'"
    )
    return _filled("report.html.j2", page=page, style=style, script=script, policy=policy)


def plain(template: str, **content: Any) -> str:
    """A page of another template, in the report's style; it holds no script and loads nothing."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return _filled(template, style=_asset("report.css"), policy=policy, **content)


def _filled(template: str, **content: Any) -> str:
    text: str = _environment(autoescape=True).get_template(template).render(**content)
    return text


def markdown(page: Page) -> str:
    """The verdict, the table of all rows and what was not measured, to paste into a page."""
    environment = _environment(autoescape=False, finalize=_finalize)
    template = environment.get_template("report.md.j2")
    shown = page.results.without(MARKDOWN_HIDDEN)
    tables = page.devices.tables if page.devices else ()
    text: str = template.render(
        page=page,
        results=markdown_table(shown),
        binding=Raw(page.binding),
        devices=[(title, markdown_table(table), table.caption) for title, table in tables],
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


class Raw(str):
    """Text that is Markdown already."""

    __slots__ = ()


def markdown_table(table: Table) -> Raw:
    """A table in GitHub's Markdown; notes and marks follow the figure in brackets."""
    under = [f"\n{escape_markdown(note)}" for note in table.notes]
    if not table.lines:
        return Raw("\n".join([escape_markdown(table.empty), *under]))
    heads = [f"{c.label}, {c.unit}" if c.unit else c.label for c in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = ([_markdown_value(value) for value in line.values] for line in table.lines)
    lines = [_line(map(escape_markdown, heads)), _line(rule), *map(_line, rows)]
    return Raw("\n".join([*lines, *under]))


def escape_markdown(text: str) -> str:
    """``text`` so that Markdown shows it as it is, on one line."""
    plain = " ".join(text.split())
    return re.sub(r"([\\`*\[\]|])", r"\\\1", plain).replace("&", "&amp;").replace("<", "&lt;")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_value(value: Value) -> str:
    link_only = bool(value.href and value.marks)
    extra = [*value.marks, *([value.note] if value.note and not link_only else [])]
    shown = value.text if value.text or extra else value.shown
    text = f"{shown} ({'; '.join(extra)})" if extra and shown else shown or "; ".join(extra)
    return escape_markdown(text)


def _finalize(value: Any) -> str:
    return value if isinstance(value, Raw) else escape_markdown(str(value))


def _environment(**options: Any) -> Any:
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Any:
    """A long name that may break after ``:`` and ``,``."""
    markupsafe = require("markupsafe", extra="report")
    parts = re.split(r"(?<=[:,])", text)
    return markupsafe.Markup("<wbr>").join(parts)


@cache
def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
