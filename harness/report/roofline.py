"""How near a cell comes to what the machine can do: the roofline (Williams et al. 2009).

A cell cannot compute faster than the machine multiplies, nor faster than its numbers arrive. What
it achieves is twice its multiply-accumulates over the median; how many operations it does for each
byte follows from the network on paper: every weight read once a call, and what each layer reads
and writes, at 4 bytes in float32 and 1 in int8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from harness.machine_speed import Speed
from harness.records import Artifact, Cost, RunRecord
from harness.report.chart_roofline import Dot, roofline
from harness.report.chart_style import Look
from harness.report.chart_svg import Chart
from harness.report.charts import Group, is_float, short_names
from harness.report.data import RunData
from harness.report.figures import significant
from harness.report.join import Row
from harness.report.tables import Column, Line, Table, Value, blank, text
from harness.report.timings import INFERENCE, Timings

BYTES = {"float32": 4, "int8": 1}
GIGA = 1e9


class Achieved(NamedTuple):
    """Operations per second that a cell does and could do; ``intensity`` is operations a byte."""

    intensity: float
    flops: float
    roof: float

    @property
    def share(self) -> float:
        return self.flops / self.roof


def intensity(cost: Cost, precision: str, batch: int) -> float:
    """Operations for each byte of weights and activations that a call of ``batch`` images moves."""
    moved = (cost.parameters + batch * cost.moved) * BYTES[precision]
    return 2 * cost.macs * batch / moved


class Roofs:
    """How fast the machine of each run is, by number of threads."""

    def __init__(self, runs: Sequence[RunData]) -> None:
        self._speeds = [_speeds(run) for run in runs]

    def speeds(self, run: int) -> Mapping[int, Speed]:
        return self._speeds[run]

    def achieved(
        self, run: int, record: RunRecord | None, artifact: Artifact | None, timings: Timings
    ) -> Achieved | None:
        """None where the machine's speed, the network's cost or the median is not known."""
        pace = timings.median(record, INFERENCE)
        if record is None or artifact is None or artifact.cost is None or pace is None:
            return None
        speed = self._speeds[run].get(record.cell.threads)
        if speed is None or not artifact.cost.macs:
            return None
        each = intensity(artifact.cost, artifact.precision, record.cell.batch)
        flops = 2 * artifact.cost.macs * record.cell.batch / (pace.p50 / 1e9)
        return Achieved(each, flops, speed.roof(each))

    def of(self, row: Row, timings: Timings) -> Achieved | None:
        return self.achieved(row.run, row.latency, row.artifact, timings)


def share(found: Achieved | None) -> Value:
    """For a table: per cent of the roofline, with what it is a share of."""
    if found is None:
        return blank("not known")
    note = f"{significant(found.flops / GIGA)} of {significant(found.roof / GIGA)} GFLOP/s"
    return Value(text=significant(100 * found.share), sort=100 * found.share, note=note)


def chart(group: Group, looks: Mapping[str, Look], timings: Timings, roofs: Roofs) -> Chart | None:
    """Rows of one model at their fastest number of threads, under the machine's roofs."""
    best: dict[str, tuple[Row, Achieved]] = {}
    for row in group.rows:
        found = roofs.of(row, timings)
        if found is not None and (row.pair not in best or found.flops > best[row.pair][1].flops):
            best[row.pair] = (row, found)
    if not best:
        return None
    names = short_names(group.rows)
    dots = [
        Dot(
            label=names[pair],
            series=row.runner,
            hollow=is_float(row),
            intensity=found.intensity,
            gflops=found.flops / GIGA,
            share=found.share,
        )
        for pair, (row, found) in best.items()
    ]
    runs = {row.run for row, _ in best.values()}
    speeds = {n: speed for run in sorted(runs) for n, speed in roofs.speeds(run).items()}
    return roofline(dots, tuple(speeds.values()), looks, key=f"{group.key}-roof", title=group.title)


def machines(runs: Sequence[RunData], name: Mapping[str, str], roofs: Roofs) -> Table | None:
    """What each machine can do, at each number of threads; None where it was not measured."""
    lines = []
    for index, run in enumerate(runs):
        for threads, speed in sorted(roofs.speeds(index).items()):
            rates = (speed.flops / GIGA, speed.bandwidth / GIGA, speed.flops / speed.bandwidth)
            lines.append(
                Line(
                    values=(
                        text(name[run.machine_id]),
                        text(str(run.run.get("name", ""))),
                        Value(text=str(threads), sort=threads),
                        *(Value(text=significant(rate), sort=rate) for rate in rates),
                    )
                )
            )
    columns = (
        Column(key="machine", label="Machine", wide=True),
        Column(key="run", label="Run"),
        Column(key="threads", label="Threads", numeric=True),
        Column(key="flops", label="Matrix product", unit="GFLOP/s", numeric=True),
        Column(key="bytes", label="Copy", unit="GB/s", numeric=True),
        Column(key="ridge", label="Ridge", unit="operations a byte", numeric=True),
    )
    caption = (
        "What the machine can do, measured beside the cells: the best sample of a float32 matrix"
        " product by numpy's BLAS, and of a copy larger than the caches (bytes read and written)."
        " Left of the ridge memory is the limit, right of it arithmetic."
    )
    table = Table(key="machines", caption=caption, columns=columns, lines=tuple(lines))
    return table if lines else None


def _speeds(run: RunData) -> dict[int, Speed]:
    found = msgspec.convert(run.run.get("speeds") or (), tuple[Speed, ...])
    return {speed.threads: speed for speed in found if speed.flops_per_s and speed.bytes_per_s}
