"""Which pictures a report shows, and of which boxes: the worst, the most confident, the changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import fidelity, parity
from harness.datasets import open_dataset
from harness.errors import DetbenchError
from harness.interfaces import Dataset, Detections
from harness.mistakes import FALSE
from harness.report.figures import count
from harness.report.pictures import (
    Drawing,
    Mark,
    Plate,
    Style,
    draw,
    judged_marks,
    photo,
    score_text,
    summary,
)
from harness.report.seen import Seen

MOST_WRONG = 6
MOST_CONFIDENT = 3
MOST_CHANGED = 6


class Album:
    """Pictures of a data set by name, as long as they are the ones that were scored.

    ``reason`` says why there are none, if so.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.reason = ""
        self._data: Dataset | None = None
        self._places: dict[str, int] = {}
        names = seen.found.names
        try:
            self._data = open_dataset(seen.row.dataset, limit=len(names))
            self._places = {self._data.image_id(i): i for i in range(len(self._data))}
        except DetbenchError as error:
            self.reason = f"No pictures: {error}."

    def pixels(self, place: int) -> NDArray[np.uint8] | None:
        """The picture of the ``place``-th scored image; None where it is not there any more."""
        found = self.seen.found
        index = self._places.get(found.names[place])
        if self._data is None or index is None:
            return None
        try:
            if found.digests and self._data.digest(index) != found.digests[place]:
                return None
            return self._data.image(index)
        except DetbenchError:
            return None


def telling(seen: Seen) -> list[tuple[int, str]]:
    """Images with mistakes, and why each is shown: most mistakes, then most confident ones."""
    if not seen.judged:
        return []
    names = seen.found.names
    errors = [one.errors for one in seen.judged]
    worst = sorted(range(len(names)), key=lambda place: (-errors[place], names[place]))
    chosen = {
        place: count(errors[place], "mistake") for place in worst[:MOST_WRONG] if errors[place]
    }
    confident = sorted(
        (
            (-float(found.scores[wrong].max()), names[place], place)
            for place, (found, one) in enumerate(
                zip(seen.found.detections, seen.judged, strict=True)
            )
            if place not in chosen and (wrong := np.isin(one.kinds, FALSE)).any()
        ),
    )
    for score, _, place in confident[:MOST_CONFIDENT]:
        chosen[place] = f"a false positive with a score of {score_text(-score)}"
    return list(chosen.items())


def mistake_plates(seen: Seen, album: Album, key: str) -> tuple[Plate, ...]:
    """One drawing each."""
    plates = []
    for number, (place, why) in enumerate(telling(seen)):
        marks = judged_marks(seen, place)
        plate = _plate(seen, album, place, why, f"{key}-m{number}", [(seen.row.pair, marks)])
        plates += [plate] if plate else []
    return tuple(plates)


def changed_plates(parent: Seen, child: Seen, album: Album, key: str) -> tuple[Plate, ...]:
    """Images that compression changed most: the float model's answer beside the export's."""
    names = child.found.names
    most = fidelity.changes(names, parent.found.detections, child.found.detections)[:MOST_CHANGED]
    plates = []
    for number, one in enumerate(most):
        before, after = changed_marks(
            parent.found.detections[one.place], child.found.detections[one.place], child.labels
        )
        parts = (f"{number} {name}" for name, number in one.counts._asdict().items() if number)
        sides = [(parent.row.pair, before), (child.row.pair, after)]
        plate = _plate(child, album, one.place, ", ".join(parts), f"{key}-c{number}", sides)
        plates += [plate] if plate else []
    return tuple(plates)


def changed_marks(before: Detections, after: Detections, labels: Sequence[str]) -> list[list[Mark]]:
    """Marks for both sides: what stayed, what was lost on the left, what is new on the right."""
    rows, columns, overlap = parity.pairs(before, after, parity.PAIRED_IOU)
    found = zip(columns.tolist(), overlap.tolist(), strict=True)
    partner = dict(zip(rows.tolist(), found, strict=True))
    left: list[Mark] = []
    right: list[Mark] = []
    for row in range(len(before.scores)):
        column, kept = partner.get(row, (-1, 0.0))
        shown = before.scores[row] >= parity.SHOWN_SCORE
        if column < 0:
            left += [_mark(before, row, labels, "missed", "lost")] if shown else []
        elif shown or after.scores[column] >= parity.SHOWN_SCORE:
            change = abs(float(before.scores[row]) - float(after.scores[column]))
            rescored, moved = change > parity.SAME_SCORE, kept < parity.STILL_IOU
            words = "rescored" if rescored else "moved" if moved else ""
            left.append(_mark(before, row, labels, "hit", words))
            right.append(_mark(after, column, labels, "hit", words))
    alone = set(range(len(after.scores))) - set(columns.tolist())
    new = [column for column in sorted(alone) if after.scores[column] >= parity.SHOWN_SCORE]
    right += [_mark(after, column, labels, "false", "new") for column in new]
    return [sorted(side, key=lambda mark: bool(mark.label)) for side in (left, right)]


def _mark(found: Detections, index: int, labels: Sequence[str], style: Style, words: str) -> Mark:
    """A detection; one that stayed as it was goes unnamed."""
    name = f"{labels[int(found.labels[index])]} {score_text(float(found.scores[index]))}"
    xmin, ymin, xmax, ymax = found.boxes[index].tolist()
    return Mark(
        box=(xmin, ymin, xmax, ymax),
        style=style,
        label=name if words else "",
        said=f"{name} {words or 'unchanged'}",
    )


def _plate(
    seen: Seen,
    album: Album,
    place: int,
    why: str,
    key: str,
    sides: Sequence[tuple[str, Sequence[Mark]]],
) -> Plate | None:
    pixels = album.pixels(place)
    kept = photo(pixels) if pixels is not None else None
    if kept is None:
        return None
    name = Path(seen.found.names[place]).name
    drawings = []
    for number, (caption, marks) in enumerate(sides):
        note = summary(marks) if len(sides) == 1 else ""
        alt = f"{name}, {caption}: {'; '.join(mark.said for mark in marks) or 'no box'}"
        svg = draw(kept, marks, key=key, first=number == 0, alt=alt)
        drawings.append(Drawing(caption=caption if len(sides) > 1 else "", note=note, svg=svg))
    return Plate(name=name, why=why, drawings=tuple(drawings))
