"""Where a detector goes wrong, to be looked at: curves, confusions, sizes and pictures by group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import parity
from harness.mistakes import SIZES, Fate, Kind, by_size, confusion
from harness.report.chart_curves import class_curves, curves_chart
from harness.report.chart_style import drawing
from harness.report.chart_svg import Chart
from harness.report.charts import Group
from harness.report.data import RunData
from harness.report.figures import count, listing, percent
from harness.report.join import Row
from harness.report.pictures import Plate
from harness.report.plates import Album, changed_plates, mistake_plates
from harness.report.seen import Seen, pair
from harness.report.tables import Column, Line, Table, Value, blank, text

MOST_GROUPS = 4
MOST_CLASSES = 16
OTHER = "other classes"
NOWHERE, NOT_FOUND = "nothing there", "not found"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a confusion matrix; ``share`` of its row, 0..1, shades it."""

    text: str
    share: float
    right: bool


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A confusion matrix: rows are what is there, columns what was said."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything to look at of one group. What is None or empty has its reason in ``notes``."""

    key: str
    title: str
    subject: str
    sentences: tuple[str, ...]
    curves: Chart | None
    matrix: Matrix | None
    sizes: Table | None
    mistakes: tuple[Plate, ...]
    changed: tuple[Plate, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """All groups that are shown; ``note`` says what is not."""

    looks: tuple[Look, ...]
    note: str


def looks(
    runs: Sequence[RunData],
    groups: Sequence[Group],
    choices: Mapping[str, Row | None],
    *,
    pictures: bool,
) -> Looks:
    """Look at the first `MOST_GROUPS` groups that left evidence.

    Args:
        choices: the recommended row by the group's key.
        pictures: whether photos of the data set may stand in the page.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    found: list[Look] = []
    shown: list[tuple[Seen, str]] = []
    reasons: list[str] = []
    left = 0
    with drawing():
        for group in groups:
            seen, parent, reason = pair(runs, group, choices.get(group.key))
            if seen is None:
                reasons.append(reason)
            elif twin := next((title for other, title in shown if _alike(seen, other)), None):
                found.append(_look_elsewhere(group, seen, twin))
            elif len(shown) >= MOST_GROUPS:
                left += 1
            else:
                shown.append((seen, group.title))
                found.append(_look(group, seen, parent, pictures=pictures))
    note = f"{count(left, 'more group')} of rows not shown." if left else ""
    if not found:
        note = " ".join(dict.fromkeys(reasons)) or "No accuracy cell was measured."
    return Looks(looks=tuple(found), note=note)


def _alike(one: Seen, other: Seen) -> bool:
    """Whether the same export found the very same in the same images, on another machine, say."""
    if one.row.pair != other.row.pair or one.found.names != other.found.names:
        return False
    pairs = zip(one.found.detections, other.found.detections, strict=True)
    return all(
        np.array_equal(mine.boxes, theirs.boxes)
        and np.array_equal(mine.labels, theirs.labels)
        and np.array_equal(mine.scores, theirs.scores)
        for mine, theirs in pairs
    )


def _look_elsewhere(group: Group, seen: Seen, title: str) -> Look:
    """A group whose detections are another one's, which is shown."""
    return Look(
        key=f"{group.key}-look",
        title=group.title,
        subject=seen.row.pair,
        sentences=(f"Found exactly what was found in {title}, above.",),
        curves=None,
        matrix=None,
        sizes=None,
        mistakes=(),
        changed=(),
        notes=(),
    )


def with_pictures(shown: Looks, most: int) -> Looks:
    """The same with at most so many pictures of each sort; the most telling ones stay."""
    note = "Further pictures are left out, to keep the page small."
    return replace(
        shown,
        looks=tuple(
            replace(
                one,
                mistakes=one.mistakes[:most],
                changed=one.changed[:most],
                notes=(*one.notes, note),
            )
            if len(one.mistakes) > most or len(one.changed) > most
            else one
            for one in shown.looks
        ),
    )


def _look(group: Group, seen: Seen, parent: Seen | None, *, pictures: bool) -> Look:
    notes = []
    if not seen.judged:
        notes.append("The data set has no ground truth: only changes against float are shown.")
    if parent is None:
        notes.append("No float export was scored on the same images, so no change is shown.")
    wrong: tuple[Plate, ...] = ()
    changed: tuple[Plate, ...] = ()
    if pictures:
        album = Album(seen)
        notes += [album.reason] if album.reason else []
        wrong = mistake_plates(seen, album, group.key)
        changed = changed_plates(parent, seen, album, group.key) if parent else ()
    else:
        notes.append("Pictures are left out, as asked.")
    names = seen.row.pair, parent.row.pair if parent else None
    judged = bool(seen.judged)
    curves = (
        class_curves(
            seen.truths,
            seen.found.detections,
            parent.found.detections if parent else None,
            seen.labels,
        )
        if judged
        else []
    )
    return Look(
        key=f"{group.key}-look",
        title=group.title,
        subject=seen.row.pair,
        sentences=tuple(_sentences(seen, parent)),
        curves=curves_chart(curves, names, key=f"{group.key}-curves", title=group.title),
        matrix=_matrix(seen) if judged else None,
        sizes=_sizes(group.key, [seen, *([parent] if parent else [])]) if judged else None,
        mistakes=wrong,
        changed=changed,
        notes=tuple(notes),
    )


def _sentences(seen: Seen, parent: Seen | None) -> Iterable[str]:
    if seen.judged:
        kinds = np.concatenate([one.kinds for one in seen.judged])
        fates = np.concatenate([one.fates for one in seen.judged])
        number = {kind: int((kinds == kind).sum()) for kind in Kind}
        wrong = [
            f"{number[kind]:,} {words}"
            for kind, words in (
                (Kind.CONFUSED, "of the wrong class"),
                (Kind.DUPLICATE, "on an object found already"),
                (Kind.PLACED, "badly placed"),
                (Kind.NOTHING, "where nothing is"),
            )
            if number[kind]
        ]
        total = sum(number[kind] for kind in (Kind.CONFUSED, Kind.DUPLICATE, Kind.PLACED))
        total += number[Kind.NOTHING]
        objects = int((fates != Fate.IGNORED).sum())
        yield (
            f"At a score of {seen.shown_score:g} and an IoU of 0.5, {seen.row.pair} finds"
            f" {number[Kind.HIT]:,} of {count(objects, 'object')} and shows"
            f" {count(total, 'false positive')}{f': {listing(wrong)}' if wrong else ''}."
        )
    if parent is not None:
        changes = parity.compare_detections(parent.found.detections, seen.found.detections)
        yield (
            f"Against {parent.row.pair}, of what either shows with a score of"
            f" {parity.SHOWN_SCORE:g}: {changes.matched:,} matched ({changes.moved:,} moved,"
            f" {changes.rescored:,} rescored), {changes.lost:,} lost, {changes.new:,} new."
        )


def _matrix(seen: Seen) -> Matrix:
    """Counts with at most `MOST_CLASSES` classes of their own, those with the most objects."""
    table = confusion(seen.truths, seen.found.detections, seen.judged, len(seen.labels))
    weight = table.sum(axis=1) + table.sum(axis=0) - table.diagonal()
    present = [label for label in range(1, len(seen.labels)) if weight[label]]
    order = sorted(present, key=lambda label: (-int(weight[label]), label))
    own = sorted(order[:MOST_CLASSES])
    groups = [[label] for label in own]
    names = [seen.labels[label] for label in own]
    if rest := sorted(order[MOST_CLASSES:]):
        groups.append(rest)
        names.append(OTHER)
    groups.append([0])
    rows = []
    for index, (name, members) in enumerate(zip([*names, NOWHERE], groups, strict=True)):
        counts = [int(table[np.ix_(members, others)].sum()) for others in groups]
        total = sum(counts) if members != [0] else max(1, *counts)
        cells = tuple(
            Cell(
                text=f"{number:,}" if number else "",
                share=round(number / total, 2) if total else 0.0,
                right=place == index and members != [0],
            )
            for place, number in enumerate(counts)
        )
        rows.append((name, cells[:-1] if members == [0] else cells))
    return Matrix(columns=(*names, NOT_FOUND), rows=tuple(rows))


def _sizes(key: str, seen: Sequence[Seen]) -> Table:
    columns = (
        Column(key="size", label="Size"),
        Column(key="export", label="Export"),
        Column(key="objects", label="Objects", numeric=True),
        Column(key="found", label="Found", unit="%", numeric=True),
        Column(key="confused", label="Wrong class", unit="%", numeric=True),
        Column(key="placed", label="Badly placed", unit="%", numeric=True),
        Column(key="missed", label="Missed", unit="%", numeric=True),
    )
    tables = [by_size(one.truths, one.judged) for one in seen]
    lines = [
        _size_line(size, one, table[place].tolist())
        for place, size in enumerate(SIZES)
        for one, table in zip(seen, tables, strict=True)
    ]
    return Table(
        key=f"{key}-sizes",
        caption=(
            "What became of the objects of each size. Small is an area of up to 32² pixels of the"
            " original image, medium up to 96², as in COCO."
        ),
        columns=columns,
        lines=tuple(lines),
    )


def _size_line(size: str, one: Seen, fates: Sequence[int]) -> Line:
    objects = sum(fates) - fates[Fate.IGNORED]
    shares = (Fate.FOUND, Fate.CONFUSED, Fate.PLACED, Fate.MISSED)
    values = (
        Value(text=percent(fates[fate] / objects), sort=fates[fate] / objects)
        if objects
        else blank("no object")
        for fate in shares
    )
    number = Value(text=f"{objects:,}", sort=objects)
    return Line(values=(text(size), text(one.row.export), number, *values))
