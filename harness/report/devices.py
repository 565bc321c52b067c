"""Tables over several machines: how fast each export is on each, and whether orders agree."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness import stats
from harness.devices.names import Devices
from harness.devices.published import Published
from harness.devices.ranks import Agreement, agreement
from harness.report.data import RunData
from harness.report.figures import count, duration, milliseconds, percent, significant
from harness.report.join import Joined, Row
from harness.report.roofline import Roofs, machines
from harness.report.tables import Column, Line, Table, Value, blank, text
from harness.report.timings import Timings
from harness.rounds import took_turns

What = tuple[str, str, str]
"""Model, export and runner: what is compared between machines."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything that a report says about machines together; None where there is nothing to say."""

    matrix: Table | None
    agreement: Table | None
    prices: Table | None
    speeds: Table | None
    published: Table | None

    @property
    def tables(self) -> tuple[tuple[str, Table], ...]:
        """What there is, each with its heading."""
        found = {
            "Fastest on each machine": self.matrix,
            "Is the order the same?": self.agreement,
            "What the machines can do": self.speeds,
            "Speed for money": self.prices,
            "Published by others": self.published,
        }
        return tuple((title, table) for title, table in found.items() if table is not None)


class Fleet:
    """The fastest row of each export on each machine."""

    def __init__(
        self, runs: Sequence[RunData], joined: Joined, timings: Timings, devices: Devices
    ) -> None:
        self.timings, self.devices = timings, devices
        self._runs = runs
        self.machines = list(dict.fromkeys(run.machine_id for run in runs))
        self.best: dict[What, dict[str, Row]] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()
        self.unfit: dict[tuple[What, str], str] = {}
        for row in joined.rows:
            pace = timings.pace(row)
            if pace is None:
                continue
            machine, what = self.machine(row), (row.model, row.export, row.runner)
            if why := self._unfit(row):
                self._left_out[machine, why] += 1
                self.unfit[what, machine] = why
                continue
            here = self.best.setdefault(what, {})
            other = timings.pace(here[machine]) if machine in here else None
            if other is None or pace.p50 < other.p50:
                here[machine] = row

    def machine(self, row: Row) -> str:
        return self._runs[row.run].machine_id

    def _unfit(self, row: Row) -> str:
        """Why a time is not held against another machine's; empty if it is."""
        if row.tainted:
            return "tainted"
        if row.mixed_artifacts:
            return "of other bytes than what was scored"
        return "smoke" if str(self._runs[row.run].run.get("tier")) == "smoke" else ""

    @property
    def left_out(self) -> tuple[str, ...]:
        """A sentence for each machine and reason."""
        return tuple(
            f"Left out for {self.devices.name(machine)}: {count(rows, 'timed row')} ({why})."
            for (machine, why), rows in self._left_out.items()
        )

    def p50(self, row: Row) -> float:
        pace = self.timings.pace(row)
        if pace is None:
            raise ValueError("only rows with a licensed median are kept")
        return pace.p50

    def floor(self, rows: Sequence[Row]) -> float:
        """Up to which ratio latencies of one machine count as equal: by turns if all took turns."""
        records = [row.latency for row in rows if row.latency is not None]
        turns = [took_turns(records[0], other) for other in records[1:]]
        if turns and None not in turns and len({row.run for row in rows}) == 1:
            return max(stats.LEAST_RATIO, *(floor for floor in turns if floor is not None))
        apart = [self._runs[row.run].run.get("noise_floor") for row in rows]
        return max([stats.LEAST_RATIO, *(float(floor) for floor in apart if floor is not None)])

    def compared(self, a: str, b: str) -> Agreement:
        """How far the orders of two machines agree, over the exports that both ran."""
        common = [here for here in self.best.values() if a in here and b in here]
        rows = [[here[machine] for here in common] for machine in (a, b)]
        times = [[self.p50(row) for row in each] for each in rows]
        return agreement(times[0], times[1], (self.floor(rows[0]), self.floor(rows[1])))


def section(
    runs: Sequence[RunData],
    joined: Joined,
    timings: Timings,
    devices: Devices,
    published: Sequence[Published],
    roofs: Roofs,
) -> Section | None:
    """The section of a report; None where one machine alone was measured and nothing published."""
    fleet = Fleet(runs, joined, timings, devices)
    names = {machine: devices.name(machine) for machine in fleet.machines}
    speeds = machines(runs, names, roofs)
    several = len(fleet.machines) > 1 and bool(fleet.best or fleet.left_out)
    if not several and not published and speeds is None:
        return None
    return Section(
        matrix=_matrix(fleet, roofs) if several else None,
        agreement=_agreement(fleet) if several and fleet.best else None,
        prices=_prices(fleet) if several else None,
        speeds=speeds,
        published=_published(published) if published else None,
    )


def _matrix(fleet: Fleet, roofs: Roofs) -> Table:
    names = [fleet.devices.name(machine) for machine in fleet.machines]
    columns = [
        Column(key="model", label="Model", wide=True),
        Column(key="export", label="Export", pinned=True),
        Column(key="runner", label="Runner"),
        *(
            Column(key=f"device{number}", label=name, unit="ms", numeric=True)
            for number, name in enumerate(names)
        ),
    ]
    fastest = _fastest(fleet)
    lines = [
        Line(
            values=(
                *map(text, what),
                *(_time(fleet, what, machine, fastest, roofs) for machine in fleet.machines),
            )
        )
        for what in fleet.best
    ]
    caption = (
        "Inference p50 of each export on each machine, at the thread count that is fastest there."
        " Tainted and smoke rows are left out. “Other artifact” marks a figure that was measured on"
        " other bytes than the first one of its line."
    )
    return Table(
        key="devices",
        caption=caption,
        columns=tuple(columns),
        lines=tuple(lines),
        empty="No export has a time that can be held against another machine's.",
        notes=fleet.left_out,
    )


def _fastest(fleet: Fleet) -> frozenset[str]:
    """Keys of the fastest row of each machine and model."""
    found: dict[tuple[str, str], Row] = {}
    for (model, _, _), here in fleet.best.items():
        for machine, row in here.items():
            key = (machine, model)
            if key not in found or fleet.p50(row) < fleet.p50(found[key]):
                found[key] = row
    return frozenset(row.key for row in found.values())


def _time(fleet: Fleet, what: What, machine: str, fastest: frozenset[str], roofs: Roofs) -> Value:
    here = fleet.best[what]
    row = here.get(machine)
    if row is None:
        return blank(fleet.unfit.get((what, machine), "not measured"))
    marks = ["fastest"] if row.key in fastest else []
    first = next(iter(here.values()))
    digests = [one.latency.artifact_sha256 if one.latency else None for one in (row, first)]
    if digests[0] != digests[1]:
        marks.append("other artifact")
    ns, reached = fleet.p50(row), roofs.of(row, fleet.timings)
    near = f", {100 * reached.share:.0f} % of its roofline" if reached else ""
    return Value(
        text=milliseconds(ns),
        sort=ns / 1e6,
        note=f"{count(row.threads, 'thread')}{near}",
        marks=tuple(marks),
    )


def _agreement(fleet: Fleet) -> Table:
    columns = (
        Column(key="a", label="Machine", wide=True),
        Column(key="b", label="And", wide=True),
        Column(key="count", label="Exports", numeric=True),
        Column(key="tau", label="Kendall τ", numeric=True),
        Column(key="rho", label="Spearman ρ", numeric=True),
        Column(key="words", label="What it means", wide=True),
    )
    lines = []
    for a, b in itertools.combinations(fleet.machines, 2):
        found = fleet.compared(a, b)
        lines.append(
            Line(
                values=(
                    text(fleet.devices.name(a)),
                    text(fleet.devices.name(b)),
                    text(found.exports),
                    _number(found.tau),
                    _number(found.rho),
                    text(found.words),
                )
            )
        )
    caption = (
        "Whether two machines put the same exports in the same order: 1 the same, 0 unrelated,"
        " −1 reversed. τ counts pairs and takes those within a machine's noise floor as ties; ρ"
        " compares ranks as they were measured."
    )
    return Table(key="agreement", caption=caption, columns=columns, lines=tuple(lines))


def _number(value: float | None) -> Value:
    if value is None:
        return blank("not defined")
    return Value(text=f"{value:.2f}".replace("-", "−"), sort=value)


def _prices(fleet: Fleet) -> Table | None:
    priced = [m for m in fleet.machines if fleet.devices.price(m) is not None]
    columns = (
        Column(key="device", label="Machine", wide=True),
        Column(key="model", label="Model", wide=True),
        Column(key="export", label="Fastest export"),
        Column(key="price", label="Price", numeric=True),
        Column(key="p50", label="Inference p50", unit="ms", numeric=True),
        Column(key="rate", label="Inferences per second for a price of 1", numeric=True),
    )
    lines = []
    fastest = _fastest(fleet)
    for machine in priced:
        price = fleet.devices.price(machine) or 0.0
        rows = [here[machine] for here in fleet.best.values() if machine in here]
        for row in (row for row in rows if row.key in fastest):
            ns = fleet.p50(row)
            rate = 1e9 / ns / price
            lines.append(
                Line(
                    values=(
                        text(fleet.devices.name(machine)),
                        text(row.model),
                        text(row.pair),
                        Value(text=f"{price:g}", sort=price),
                        Value(text=milliseconds(ns), sort=ns / 1e6),
                        Value(text=significant(rate), sort=rate),
                    )
                )
            )
    caption = "Speed for money, with the prices of devices.yaml. One frame at a time, no batching."
    table = Table(key="prices", caption=caption, columns=columns, lines=tuple(lines))
    return table if lines else None


def _published(figures: Sequence[Published]) -> Table:
    columns = (
        Column(key="device", label="Device", wide=True),
        Column(key="model", label="Model", wide=True),
        Column(key="precision", label="Precision"),
        Column(key="metric", label="Figure"),
        Column(key="value", label="Published", numeric=True),
        Column(key="data", label="Data", wide=True),
        Column(key="source", label="Source", wide=True),
    )
    lines = [
        Line(
            values=(
                text(_where(figure)) if figure.device else blank("of no device"),
                text(figure.model),
                text(figure.precision),
                text(figure.metric),
                Value(text=_amount(figure), sort=figure.value, marks=("published",)),
                text(figure.data) if figure.data else blank("not stated"),
                text(figure.source),
            )
        )
        for figure in figures
    ]
    caption = (
        "What others published about these models and devices. None of it was measured here, by"
        " these methods or on these files, and none of it counts in any table or verdict above."
    )
    return Table(key="published", caption=caption, columns=columns, lines=tuple(lines))


def _where(figure: Published) -> str:
    threads = f", {count(figure.threads, 'thread')}" if figure.threads else ""
    return f"{figure.device} {figure.unit_of_device or ''}".strip() + threads


def _amount(figure: Published) -> str:
    if figure.unit == "ns":
        return duration(figure.value)
    return f"{percent(figure.value)} %" if figure.unit == "1" else f"{figure.value:,.0f}"
