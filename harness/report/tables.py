"""Tables as data: one description that HTML and Markdown both render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.report.figures import BLANK


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column. ``key`` names it in the address (``#sort=key``), ``unit`` stands in its heading.

    A ``wide`` column may wrap; the ``pinned`` one stays in view when the table is scrolled.
    """

    key: str
    label: str
    unit: str = ""
    numeric: bool = False
    wide: bool = False
    pinned: bool = False

    @cached_property
    def css(self) -> str:
        """Class names for the page."""
        names = {"num": self.numeric, "wide": self.wide, "pinned": self.pinned}
        return " ".join(name for name, given in names.items() if given)


@dataclass(frozen=True, kw_only=True)
class Value:
    """One cell of a table.

    Attributes:
        text: what is shown; empty where there is no figure, and then ``note`` says why.
        sort: what it sorts by; None sorts last in both directions.
        note: a second, smaller line: an interval, or the reason for a blank.
        marks: words that qualify the figure, such as ``unstable``.
        href: an address inside the page.
        mono: a hash or an identifier.
    """

    text: str = ""
    sort: float | str | None = None
    note: str = ""
    marks: tuple[str, ...] = ()
    href: str = ""
    mono: bool = False

    @property
    def key(self) -> str | None:
        """The sort key where it is not what is shown: six digits order what three show."""
        key = f"{self.sort:.6g}" if isinstance(self.sort, float) else self.sort
        return None if key is None or str(key) == self.text else str(key)

    @property
    def shown(self) -> str:
        return self.text or BLANK


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table. ``cells`` are ids of the planned cells that this row accounts for."""

    values: tuple[Value, ...]
    key: str = ""
    cells: tuple[str, ...] = ()
    highlight: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its caption; ``empty`` is said where there are no lines, ``notes`` below it."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    empty: str = "Nothing to show."
    notes: tuple[str, ...] = field(default=())

    def without(self, keys: Sequence[str]) -> Table:
        """The same table without some columns."""
        kept = [index for index, column in enumerate(self.columns) if column.key not in keys]
        return Table(
            key=self.key,
            caption=self.caption,
            columns=tuple(self.columns[index] for index in kept),
            lines=tuple(
                Line(
                    values=tuple(line.values[index] for index in kept),
                    key=line.key,
                    cells=line.cells,
                    highlight=line.highlight,
                )
                for line in self.lines
            ),
            empty=self.empty,
            notes=self.notes,
        )


def text(value: object, *, mono: bool = False, note: str = "", href: str = "") -> Value:
    """A value that sorts by what it shows."""
    shown = "" if value is None else str(value)
    return Value(text=shown, sort=shown or None, mono=mono, note=note, href=href)


def blank(reason: str) -> Value:
    """No figure, and why."""
    return Value(note=reason)
