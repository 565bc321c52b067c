"""Pictures with boxes drawn over them: an SVG for each, its photo embedded once and kept small."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.mistakes import FALSE, Fate, Kind
from harness.report.figures import count
from harness.report.seen import Seen

LONGEST_PX = 360
"""Longest side of a picture in the page; photos are shrunk to it, never enlarged."""
QUALITIES = (78, 60, 40, 25)
MOST_PICTURE_BYTES = 40_000
"""A JPEG above this is saved again with the next lower quality, and left out below the last."""
MOST_BOXES = 60
LABEL_PX = 11
LETTER_PX = 7.2
"""Width of a bold letter of that size, with the widest of the usual fonts."""
NAMES_SHOWN = 12
"""With more boxes than this in a picture, hits go unnamed."""

Style = Literal["hit", "false", "missed"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One box in pixels of the original image, ``(xmin, ymin, xmax, ymax)``, with its words.

    Without a ``label`` it is there for comparison only, and drawn thin.
    """

    box: tuple[float, float, float, float]
    style: Style
    label: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One picture as an ``<svg>`` element with a caption."""

    caption: str
    note: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Plate:
    """A photo and the drawings over it, side by side; ``name`` is the image's."""

    name: str
    why: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A shrunk photo: JPEG bytes, its size, and how much smaller than the original it is."""

    jpeg: bytes
    width: int
    height: int
    scale: float


def photo(pixels: NDArray[np.uint8]) -> Photo | None:
    """Shrink ``(h, w, 3)`` RGB; None where no quality makes it small enough."""
    height, width = pixels.shape[:2]
    scale = min(1.0, LONGEST_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= MOST_PICTURE_BYTES:
            return Photo(jpeg=stream.getvalue(), width=size[0], height=size[1], scale=scale)
    return None


def judged_marks(seen: Seen, place: int) -> list[Mark]:
    """Hits, false positives and misses of one image; missed objects last, to lie on top."""
    found, judged = seen.found.detections[place], seen.judged[place]
    marks = []
    for box, label, score, kind in zip(
        found.boxes.tolist(),
        found.labels.tolist(),
        found.scores.tolist(),
        judged.kinds,
        strict=True,
    ):
        if kind in (Kind.HIDDEN, Kind.IGNORED):
            continue
        style: Style = "false" if kind in FALSE else "hit"
        name = f"{seen.labels[label]} {score_text(score)}"
        marks.append(Mark(box=box, style=style, label=name, said=f"{name}, {_KINDS[Kind(kind)]}"))
    truth = seen.truths[place]
    for box, label, fate in zip(
        truth.boxes.tolist(), truth.labels.tolist(), judged.fates.tolist(), strict=True
    ):
        if fate > Fate.FOUND:
            name = seen.labels[label]
            said = f"{name} missed{_FATES.get(Fate(fate), '')}"
            marks.append(Mark(box=box, style="missed", label=name, said=said))
    return marks


_KINDS = {
    Kind.HIT: "right",
    Kind.CONFUSED: "wrong class",
    Kind.DUPLICATE: "found already",
    Kind.PLACED: "badly placed",
    Kind.NOTHING: "nothing there",
}


_FATES = {Fate.CONFUSED: ": called something else", Fate.PLACED: ": box too far off"}


def score_text(score: float) -> str:
    """A score with two decimals and without its zero: ``.87``."""
    return f"{score:.2f}".removeprefix("0")


def draw(kept: Photo, marks: Sequence[Mark], *, key: str, first: bool, alt: str) -> str:
    """The photo with its boxes; only the ``first`` drawing of a ``key`` holds the photo itself."""
    shown = marks[-MOST_BOXES:]
    named = len(shown) <= NAMES_SHOWN
    width, height = kept.width, kept.height
    data = base64.b64encode(kept.jpeg).decode()
    image = (
        f'<image id="{key}-photo" width="{width}" height="{height}"'
        f' href="data:image/jpeg;base64,{data}"/>'
        if first
        else f'<use href="#{key}-photo"/>'
    )
    boxes = "".join(_rectangles(shown, kept))
    words = [mark for mark in shown if mark.label and (named or mark.style != "hit")]
    labels = "".join(_labels(words, kept))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" viewBox="0 0 {width} {height}"'
        f' role="img" aria-label="{escape(alt)}">{image}{boxes}{labels}</svg>'
    )


def _rectangles(marks: Sequence[Mark], kept: Photo) -> Iterator[str]:
    for mark in marks:
        left, top, right, bottom = (round(edge * kept.scale, 1) for edge in mark.box)
        place = (
            f'x="{left}" y="{top}" width="{max(0.0, round(right - left, 1))}"'
            f' height="{max(0.0, round(bottom - top, 1))}"'
        )
        quiet = "" if mark.label else " quiet"
        yield f'<rect class="halo{quiet}" {place}/>'
        yield (
            f'<rect class="box {mark.style}{quiet}" {place}>'
            f"<title>{escape(mark.said)}</title></rect>"
        )


def _labels(marks: Sequence[Mark], kept: Photo) -> Iterator[str]:
    """Names above their boxes, moved where they would leave the picture or cover another."""
    taken: list[tuple[float, float, float]] = []
    for mark in marks:
        left, top, _, bottom = (edge * kept.scale for edge in mark.box)
        width = LETTER_PX * len(mark.label)
        x = min(max(left, 1.0), max(1.0, kept.width - width - 1))
        y = top - 3 if top > LABEL_PX + 3 else min(bottom - 3, top + LABEL_PX)
        y = min(max(y, LABEL_PX), kept.height - 2.0)
        while any(abs(y - b) < LABEL_PX and x < a + w and a < x + width for a, b, w in taken):
            y += LABEL_PX
        if y > kept.height:
            continue
        taken.append((x, y, width))
        yield f'<text class="{mark.style}" x="{x:.0f}" y="{y:.0f}">{escape(mark.label)}</text>'


def summary(marks: Sequence[Mark]) -> str:
    """``3 hits, 1 false positive, 2 missed``."""
    styles = [mark.style for mark in marks]
    hits, wrong = count(styles.count("hit"), "hit"), count(styles.count("false"), "false positive")
    text = f"{hits}, {wrong}, {styles.count('missed')} missed"
    left = len(marks) - MOST_BOXES
    return f"{text}; {count(left, 'box', 'boxes')} not drawn" if left > 0 else text
