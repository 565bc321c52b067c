"""From a matplotlib figure to SVG that lives in a page: themed, small, with ids of its own."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

from harness.report.chart_style import PAINTS


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with what stands around it. ``alt`` says in words what the eye would find."""

    key: str
    title: str
    caption: str
    alt: str
    svg: str


def inline(figure: Any, *, key: str, title: str, alt: str) -> str:
    """The figure as an ``<svg>`` element; ``key`` keeps its ids apart from other charts'."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = _own_ids(svg, key)
    for paint in PAINTS:
        svg = svg.replace(paint.stand_in, f"var(--chart-{paint.name}, {paint.fallback})")
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = re.sub(r">\s+<", "><", svg).strip()
    box = " ".join(re.findall(r'viewBox="([^"]*)"', svg)[:1])
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img"'
        f' aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{escape(title)}</title>'
        f'<desc id="{key}-d">{escape(alt)}</desc>'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)


def _own_ids(svg: str, key: str) -> str:
    """Drop ids that nothing refers to, and put ``key`` before the others."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{key}-{match.group(1)}"' if match.group(1) in used else ""

    svg = re.sub(r' id="([^"]*)"', rename, svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", svg)
