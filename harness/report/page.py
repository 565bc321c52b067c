"""Everything that a report says, computed once and rendered twice: as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.devices.names import Devices
from harness.devices.published import Published
from harness.report import beyond, charts, pressed, scaling, scores
from harness.report.advice import advice_table
from harness.report.binding import bind, comment
from harness.report.data import RunData
from harness.report.details import accuracy_table, latency_table, parity_table
from harness.report.devices import Section, section
from harness.report.evidence import (
    Missing,
    Provenance,
    artifact_table,
    missing,
    moment,
    provenance,
    revision,
)
from harness.report.fidelity_table import fidelity_table
from harness.report.figures import count, listing
from harness.report.findings import Breach, breaches, said
from harness.report.history import timelines
from harness.report.join import Joined, join
from harness.report.layers import layers_table
from harness.report.looking import Looks, looks
from harness.report.method import method
from harness.report.overview import accounting, overview
from harness.report.profile import profile_table
from harness.report.roofline import Roofs
from harness.report.searched import searched_table
from harness.report.tables import Table
from harness.report.timings import Timings
from harness.report.verdict import Judge, Judgement
from harness.report.wording import points

NAMED_MODELS = 3
ALL_MEASURED = "Every planned cell was measured."


@dataclass(frozen=True, kw_only=True)
class Page:
    """The content of a report, in reading order. ``warnings`` are said before anything else."""

    title: str
    binding: str
    lede: str
    warnings: tuple[str, ...]
    soundness: str
    breaches: tuple[Breach, ...]
    rule: str
    judgements: tuple[Judgement, ...]
    several_machines: bool
    several_datasets: bool
    accounting: str
    results: Table
    sections: tuple[charts.Section, ...]
    looking: Looks
    details: tuple[Table, ...]
    devices: Section | None
    missing: tuple[Missing, ...]
    missing_cells: int
    nothing_missing: str
    provenance: tuple[Provenance, ...]
    artifacts: Table
    method: tuple[tuple[str, tuple[str, ...]], ...]


def page(
    runs: Sequence[RunData],
    *,
    title: str,
    margin: float,
    pictures: bool,
    devices: Devices | None = None,
    published: Sequence[Published] = (),
) -> tuple[Page, Joined, Timings]:
    """Compute a report's content.

    Args:
        devices: names and prices of the machines.
        published: figures of others, for a table of their own.

    Raises:
        MissingExtra: matplotlib is not installed.
        ResultsError: a plan holds something that is not a cell.
    """
    joined = join(runs)
    timings, roofs = Timings(), Roofs(runs)
    metric = scores.primary_metric(joined.rows)
    groups = charts.groups(joined.rows, metric)
    judge = Judge(
        timings=timings,
        metric=metric,
        margin=margin,
        floors={index: _floor(run) for index, run in enumerate(runs)},
        tiers={index: str(run.run.get("tier", "")) for index, run in enumerate(runs)},
    )
    judgements = tuple(judge.judge(group.rows) for group in groups)
    choices = [judgement.choice for judgement in judgements if judgement.choice]
    by_group = {group.key: one.choice for group, one in zip(groups, judgements, strict=True)}
    chosen = frozenset(choice.key for choice in choices)
    faults = breaches(runs, choices)
    smoke = frozenset(index for index, tier in judge.tiers.items() if tier == "smoke")
    references = {row.key: group.reference for group in groups for row in group.rows}
    content = Page(
        title=title,
        binding=comment(bind(runs, title=title, margin=margin)),
        lede=_lede(runs, joined),
        warnings=tuple(_warnings(joined, smoke)),
        soundness=said(faults) if joined.rows else "",
        breaches=faults,
        rule=_rule(metric, margin),
        judgements=judgements,
        several_machines=len(set(joined.machines)) > 1,
        several_datasets=len({row.dataset for row in joined.rows}) > 1,
        accounting=accounting(joined),
        results=overview(joined, timings, metric, references, chosen, smoke),
        sections=(
            *charts.sections(groups, timings, metric),
            *beyond.sections(groups, joined, timings, roofs, timelines(runs)),
        ),
        looking=looks(runs, groups, by_group, pictures=pictures),
        details=(
            *_if_any(searched_table(runs)),
            accuracy_table(joined),
            fidelity_table(joined),
            latency_table(joined, timings, roofs),
            advice_table(joined, timings),
            scaling.threads_table(joined, timings, judge.floors),
            pressed.three_latencies(joined, timings),
            *_if_any(profile_table(joined), layers_table(joined), pressed.heat_table(joined)),
            parity_table(joined),
        ),
        devices=section(runs, joined, timings, devices or Devices({}), published, roofs),
        missing=missing(joined),
        missing_cells=sum(not entry.measured for entry in joined.entries),
        nothing_missing=ALL_MEASURED if joined.entries else "Nothing was planned.",
        provenance=provenance(runs, joined),
        artifacts=artifact_table(joined),
        method=method(margin),
    )
    return content, joined, timings


def _if_any(*tables: Table) -> tuple[Table, ...]:
    return tuple(table for table in tables if table.lines)


def _floor(run: RunData) -> float | None:
    floor = run.run.get("noise_floor")
    return float(floor) if isinstance(floor, int | float) and not isinstance(floor, bool) else None


def _rule(metric: str, margin: float) -> str:
    return (
        f"Per model: the fastest row whose {scores.METRICS[metric]} is proven to lie within"
        f" {points(margin)} of the float reference; of rows that no test tells apart in speed, the"
        " smallest. Tainted rows are left out."
    )


def _lede(runs: Sequence[RunData], joined: Joined) -> str:
    if not runs:
        return "No run was given, so there is nothing to report."
    models = sorted({entry.model for entry in joined.entries})
    named = listing(models) if 0 < len(models) <= NAMED_MODELS else count(len(models), "model")
    exports = {entry.cell.exporter for entry in joined.entries}
    machines = sorted(set(joined.machines))
    said = (
        f"{named}: {count(len(exports), 'exporter')},"
        f" {count(len({e.cell.runner for e in joined.entries}), 'runner')}, measured on"
        f" {listing(machines)}"
    )
    starts = sorted(
        str(run.run.get("started_at") or "") for run in runs if run.run.get("started_at")
    )
    if starts:
        said += f" from {moment(starts[0])}"
    revisions = sorted({revision(run, short=True) for run in runs})
    return f"{said} at git revision {listing(revisions)}."


def _warnings(joined: Joined, smoke: frozenset[int]) -> list[str]:
    where = sorted({joined.machines[index] for index in smoke})
    found = []
    if where:
        found.append(
            f"SMOKE RUN ({listing(where)}): the timings are a test that everything works. They are"
            " too short to compare, to publish or to decide on."
        )
    if joined.entries and not joined.rows:
        found.append(
            "No cell was measured. The reasons stand under “Not measured”; the first step is"
            " usually there."
        )
    tainted = sum(entry.state == "tainted" for entry in joined.entries)
    if tainted:
        found.append(
            f"{count(tainted, 'cell')} measured while the machine was busy or changed its state:"
            " the rows are marked tainted and count for no recommendation."
        )
    return found
