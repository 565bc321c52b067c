"""Which charts a report shows, and of which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.report import scores
from harness.report.chart_bars import Bar, sizes, split
from harness.report.chart_style import Look, drawing, looks
from harness.report.chart_svg import Chart
from harness.report.chart_threads import Series, scaling
from harness.report.chart_tradeoff import Point, pareto, tradeoff
from harness.report.figures import BYTES_PER_MB, NS_PER_MS, count
from harness.report.join import Row
from harness.report.timings import END_TO_END, STAGES, Timings

MOST_CHARTS = 6
MOST_BARS = 16
MOST_LINES = 12
MOST_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows of one machine, model and data set, which is what can be compared."""

    key: str
    machine: str
    model: str
    dataset: str
    title: str
    rows: tuple[Row, ...]
    reference: Row | None


@dataclass(frozen=True, kw_only=True)
class Section:
    """Charts that answer one question. ``note`` says what is not drawn, or why nothing is."""

    key: str
    heading: str
    intro: str
    charts: tuple[Chart, ...]
    note: str = ""


def groups(rows: Iterable[Row], metric: str) -> tuple[Group, ...]:
    """Rows by machine, model and data set, in the order of the rows."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.machine, row.model, row.dataset), []).append(row)
    machines = {machine for machine, _, _ in found}
    datasets = {dataset for _, _, dataset in found}
    return tuple(
        Group(
            key=f"g{number}",
            machine=machine,
            model=model,
            dataset=dataset,
            title=", ".join(
                [
                    model,
                    *([dataset] if len(datasets) > 1 else []),
                    *([machine] if len(machines) > 1 else []),
                ]
            ),
            rows=tuple(members),
            reference=scores.reference_of(members, metric),
        )
        for number, ((machine, model, dataset), members) in enumerate(found.items(), start=1)
    )


def sections(found: Sequence[Group], timings: Timings, metric: str) -> tuple[Section, ...]:
    """All chart sections.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    painter = _Painter(found, timings, metric)
    with drawing():
        return (
            painter.section(
                "tradeoff",
                "Accuracy against latency",
                "Higher is more accurate, further left is faster. Each point is one export on one"
                " runner with the number of threads (T) at which it is fastest; whiskers are 95 %"
                " intervals. Outlined points are float exports, filled ones int8.",
                painter.tradeoff,
                "No row has both a score and a licensed median latency.",
                first=painter.across_models(),
            ),
            painter.section(
                "threads",
                "Latency against threads",
                "What more threads buy. Whiskers are 95 % intervals of the median; dashed lines and"
                " outlined points are float exports.",
                painter.threads,
                "No model was timed with more than one number of threads.",
            ),
            painter.section(
                "split",
                "Where the time goes",
                "One image from its file to boxes, each export at its fastest number of threads"
                " (T), fastest first.",
                painter.split,
                "Pre-processing, inference and decoding were not timed, or too few times.",
            ),
            painter.section(
                "size",
                "Size",
                "What has to be stored and loaded, smallest first.",
                painter.size,
                "No artifact was measured.",
            ),
        )


class _Painter:
    def __init__(self, found: Sequence[Group], timings: Timings, metric: str) -> None:
        self.groups, self.timings, self.metric = found, timings, metric
        rows = [row for group in found for row in group.rows]
        self.runners = looks(row.runner for row in rows)
        self.models = looks(row.model for row in rows)
        self._sized: set[tuple[object, ...]] = set()

    def section(
        self,
        key: str,
        heading: str,
        intro: str,
        draw: Callable[[Group], Chart | None],
        empty: str,
        first: Sequence[Chart] = (),
    ) -> Section:
        """The charts that ``draw`` makes of the groups, up to `MOST_CHARTS`."""
        charts = list(first)
        left = 0
        for group in self.groups:
            if len(charts) >= MOST_CHARTS:
                left += 1
            elif chart := draw(group):
                charts.append(chart)
        note = f"{count(left, 'more group')} of rows not drawn: the table has all." if left else ""
        return Section(
            key=key,
            heading=heading,
            intro=intro,
            charts=tuple(charts),
            note=note if charts else empty,
        )

    def tradeoff(self, group: Group) -> Chart | None:
        """One model's rows, named by export."""
        names = short_names(group.rows)
        points = [
            point
            for row in self._fastest(group.rows)
            if (point := self._point(row, f"{names[row.pair]}, {row.threads}T", row.runner))
        ]
        return self._tradeoff(points, self.runners, f"{group.key}-tradeoff", group.title)

    def across_models(self) -> list[Chart]:
        """For each machine and data set with several models, all in one chart; the first few."""
        together: dict[tuple[str, str], list[Group]] = {}
        for group in self.groups:
            together.setdefault((group.machine, group.dataset), []).append(group)
        charts: list[Chart] = []
        for number, ((machine, dataset), members) in enumerate(together.items(), start=1):
            if len(members) < 2 or len(charts) >= MOST_CHARTS:
                continue
            points = [
                point
                for group in members
                for row in self._fastest(group.rows)
                if (point := self._point(row, f"{row.model}, {row.export}", row.model))
            ]
            where = [dataset] if len({d for _, d in together}) > 1 else []
            where += [machine] if len({m for m, _ in together}) > 1 else []
            title = ", ".join(["All models", *where])
            chart = self._tradeoff(points, self.models, f"all{number}-tradeoff", title, front=True)
            charts += [chart] if chart else []
        return charts

    def _tradeoff(
        self,
        points: Sequence[Point],
        series: Mapping[str, Look],
        key: str,
        title: str,
        front: bool = False,
    ) -> Chart | None:
        if not points:
            return None
        shown = {id(point) for point in pareto(points)}
        shown |= {id(point) for point in sorted(points, key=lambda p: p.ms[0])[:MOST_POINTS]}
        kept = [point for point in points if id(point) in shown]
        title += _of(len(kept), len(points))
        label = f"{scores.METRICS[self.metric]} (%)"
        return tradeoff(
            kept, series, key=key, title=title, score_label=label, front_labels_only=front
        )

    def _point(self, row: Row, label: str, series: str) -> Point | None:
        pace = self.timings.pace(row)
        found = scores.score(row.accuracy, self.metric)
        if pace is None or found is None:
            return None
        low = found.value if found.low is None else found.low
        high = found.value if found.high is None else found.high
        return Point(
            label=label,
            series=series,
            hollow=is_float(row),
            counts=not row.tainted,
            ms=(pace.p50 / NS_PER_MS, pace.low / NS_PER_MS, pace.high / NS_PER_MS),
            score=(100 * found.value, 100 * min(low, found.value), 100 * max(high, found.value)),
        )

    def threads(self, group: Group) -> Chart | None:
        """One model's pairs over the thread counts they were timed with."""
        names = short_names(group.rows)
        lines: dict[str, Series] = {}
        for row in group.rows:
            pace = self.timings.pace(row)
            if pace is None:
                continue
            ms = (pace.p50 / NS_PER_MS, pace.low / NS_PER_MS, pace.high / NS_PER_MS)
            before = lines.get(row.pair)
            lines[row.pair] = Series(
                label=names[row.pair],
                series=row.runner,
                hollow=is_float(row),
                ms={**(before.ms if before else {}), row.threads: ms},
            )
        ranked = sorted(lines.values(), key=lambda line: min(v[0] for v in line.ms.values()))
        chosen = ranked[:MOST_LINES]
        if len({threads for line in chosen for threads in line.ms}) < 2:
            return None
        return scaling(
            chosen,
            self.runners,
            key=f"{group.key}-threads",
            title=group.title + _of(len(chosen), len(ranked)),
        )

    def split(self, group: Group) -> Chart | None:
        """One model's pairs, each at its fastest number of threads."""
        names = short_names(group.rows)
        bars = []
        for row in self._fastest(group.rows):
            parts = self.timings.stages(row)
            if len(parts) < len(STAGES):
                continue
            file = self.timings.pace(row, "latency.decode_image")
            parts = (*((file,) if file else ()), *parts)
            end = self.timings.pace(row, END_TO_END)
            bars.append(
                Bar(
                    label=f"{names[row.pair]}, {row.threads}T",
                    parts=(
                        *(() if file else (0.0,)),
                        *(part.p50 / NS_PER_MS for part in parts),
                    ),
                    hollow=is_float(row),
                    mark=end.p50 / NS_PER_MS if end else None,
                )
            )
        bars.sort(key=lambda bar: bar.mark or sum(bar.parts))
        chosen = bars[:MOST_BARS]
        if not chosen:
            return None
        title = group.title + _of(len(chosen), len(bars))
        return split(chosen, key=f"{group.key}-split", title=title)

    def size(self, group: Group) -> Chart | None:
        """One model's exports; the same files on another machine are not drawn again."""
        found: dict[str, Bar] = {}
        for row in group.rows:
            if row.size_bytes:
                bar = Bar(
                    label=row.export, parts=(row.size_bytes / BYTES_PER_MB,), hollow=is_float(row)
                )
                found.setdefault(row.export, bar)
        bars = sorted(found.values(), key=lambda bar: (bar.parts[0], bar.label))[:MOST_BARS]
        seen = (group.model, *((bar.label, bar.parts) for bar in bars))
        if not bars or seen in self._sized:
            return None
        self._sized.add(seen)
        title = group.title + _of(len(bars), len(found))
        return sizes(bars, key=f"{group.key}-size", title=title)

    def _fastest(self, rows: Sequence[Row]) -> list[Row]:
        """Of each pair the row with the lowest licensed median."""
        best: dict[str, tuple[float, Row]] = {}
        for row in rows:
            pace = self.timings.pace(row)
            if pace and (row.pair not in best or pace.p50 < best[row.pair][0]):
                best[row.pair] = (pace.p50, row)
        return [row for _, row in best.values()]


def short_names(rows: Sequence[Row]) -> dict[str, str]:
    """The export alone where it has one runner, else export and runner."""
    runners: dict[str, set[str]] = {}
    for row in rows:
        runners.setdefault(row.export, set()).add(row.runner)
    return {
        row.pair: row.export if len(runners[row.export]) == 1 else f"{row.export} · {row.runner}"
        for row in rows
    }


def is_float(row: Row) -> bool:
    return row.artifact is not None and row.artifact.precision == "float32"


def _of(shown: int, there: int) -> str:
    return f" (the {shown} first of {there})" if shown < there else ""
