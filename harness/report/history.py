"""Latency over time: rows that were measured again and again, with their steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness import results
from harness.extras import installed
from harness.history.timeline import Line, Measured, judged
from harness.records import RunRecord
from harness.report.chart_lines import Axes, lines
from harness.report.chart_lines import Line as Drawn
from harness.report.chart_style import Look
from harness.report.chart_svg import Chart
from harness.report.data import RunData
from harness.report.figures import NS_PER_MS, count, listing
from harness.report.timings import INFERENCE

LEAST_POINTS = 6
"""A step needs three points on either side; fewer points show nothing."""
MOST_LINES = 8


def timelines(runs: Sequence[RunData]) -> list[Line]:
    """Rows with enough points, by machine and row; none where ruptures is not installed."""
    if not installed("ruptures"):
        return []
    found = judged(_measured(runs), INFERENCE)
    return [line for line in found if len(line.points) >= LEAST_POINTS]


def _measured(runs: Sequence[RunData]) -> Iterator[Measured]:
    """Records of the runs, and those beside them that are planned no more."""
    for run in runs:
        tier, floor = str(run.run.get("tier")), float(run.run.get("noise_floor") or 0.0)
        for record in (*run.records, *_earlier(run)):
            if record.cell.measure == "latency":
                yield Measured(record, tier, floor)


def _earlier(run: RunData) -> Iterator[RunRecord]:
    if run.folder is None:
        return
    known = {record.cell_id for record in run.records}
    for path in sorted(run.folder.glob("cells/*.json")):
        if path.stem not in known:
            yield results.read_sealed(path, RunRecord)


def charts(found: Sequence[Line], looks: Mapping[str, Look]) -> list[Chart]:
    """One of each machine and model, its rows as lines over the number of the record."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in found:
        groups.setdefault((line.machine, line.model), []).append(line)
    return [
        lines(
            [
                Drawn(
                    label=line.short,
                    series=line.runner,
                    points=tuple(
                        (float(number), point.median / NS_PER_MS)
                        for number, point in enumerate(line.points, start=1)
                    ),
                )
                for line in members[:MOST_LINES]
            ],
            looks,
            Axes(x="Record, oldest first", y="Inference p50 (ms)", ratios=True),
            key=f"h{number}-history",
            title=f"{model}, {machine}",
            caption=_caption(members[:MOST_LINES], max(0, len(members) - MOST_LINES)),
        )
        for number, ((machine, model), members) in enumerate(groups.items(), start=1)
    ]


def _caption(members: Sequence[Line], left: int) -> str:
    """What happened, once for all rows that it happened to."""
    said: dict[str, list[str]] = {}
    for line in members:
        for step in line.course.steps:
            how = "slower" if step.ratio > 1 else "faster"
            times = max(step.ratio, 1 / step.ratio)
            revision = line.points[step.at].revision[:12]
            words = f"{times:.2f}× {how} from record {step.at + 1} on ({revision})"
            said.setdefault(words, []).append(line.short)
        if line.course.kind == "drift":
            said.setdefault(f"drifts by {line.course.drift - 1:+.0%}", []).append(line.short)
    found = [f"{_who(rows, members)}: {words}" for words, rows in said.items()]
    more = f" {count(left, 'more row')} not drawn." if left else ""
    return ("; ".join(found) if found else "No step beyond the noise") + "." + more


def _who(rows: list[str], members: Sequence[Line]) -> str:
    everyone = len(rows) == len(members) > 1
    return f"All {len(members)} rows" if everyone else listing(rows)
