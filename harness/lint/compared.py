"""Rules over what stands side by side in a report: rows of one data set, exports of one model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol, TypeVar

from harness import stats
from harness.lint.rules import FULL_SIZE, finding, merged
from harness.lint.single import END_TO_END, INFERENCE, lint_record, row_name, scored_on
from harness.records import Artifact, Finding, RunRecord

T = TypeVar("T")
MEASURED = ("ok", "tainted")


class RunView(Protocol):
    """One run, as `harness.report.RunData` holds it."""

    @property
    def machine(self) -> Mapping[str, Any]: ...
    @property
    def records(self) -> Sequence[RunRecord]: ...
    @property
    def artifacts(self) -> Mapping[str, Artifact]: ...


def lint_runs(
    runs: Sequence[RunView], recommended: Iterable[RunRecord] = ()
) -> tuple[Finding, ...]:
    """Everything that is wrong with the records of ``runs`` and with comparing them.

    Args:
        recommended: the latency records of the rows that a report recommends.
    """
    found: list[Finding] = []
    pairs: list[tuple[RunRecord, Artifact | None]] = []
    for run in runs:
        for record in _latest(run.records):
            artifact = run.artifacts.get(record.artifact_id or "")
            found += lint_record(record, artifact, run.machine)
            pairs.append((record, artifact))
    scored = [pair for pair in pairs if pair[0].cell.measure == "accuracy"]
    timed = [pair for pair in pairs if pair[0].cell.measure == "latency"]
    found += _splits([record for record, _ in scored])
    for group in _groups(scored, lambda pair: pair[0].cell.dataset):
        found += [*_images(group), *_metrics(group), *_parents(group)]
    for group in _groups(timed, _side_by_side):
        found += _stages(group)
    found += _prepared(pairs)
    found += _effects({artifact.sha256: artifact for _, artifact in pairs if artifact}.values())
    found += _recommended(recommended)
    return merged(found)


def _latest(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The measured records that count: of several for one cell, the one started last."""
    latest = {str(record.cell): record for record in sorted(records, key=lambda r: r.started_at)}
    return [record for record in latest.values() if record.state in MEASURED]


def _groups(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    found: dict[Hashable, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def _side_by_side(pair: tuple[RunRecord, Artifact | None]) -> Hashable:
    cell = pair[0].cell
    return pair[0].machine_id, cell.model_name, cell.dataset, cell.threads


def _splits(records: Sequence[RunRecord]) -> Iterator[Finding]:
    by_data: dict[str, dict[str, list[str]]] = {}
    for record in records:
        split = str(scored_on(record).get("split", ""))
        if split:
            data = record.cell.dataset.removesuffix(f":{split}")
            by_data.setdefault(data, {}).setdefault(split, []).append(row_name(record))
    for data, splits in by_data.items():
        if len(splits) > 1:
            text = f"rows of {data} are scored on {' and '.join(sorted(splits))}"
            yield finding("split-mixed", text, *(name for rows in splits.values() for name in rows))


def _images(group: Sequence[tuple[RunRecord, Artifact | None]]) -> Iterator[Finding]:
    names, numbers, contents = [], set(), set()
    for record, _ in group:
        images = record.measurement("accuracy.images")
        number = images.value if images else scored_on(record).get("images")
        if number is not None:
            names.append(row_name(record))
            numbers.add(int(number))
        if images is not None:
            contents.add(images.conditions["sha256"])
    if len(numbers) > 1 or len(contents) > 1:
        said = " and ".join(f"{number:,}" for number in sorted(numbers))
        text = f"rows of {group[0][0].cell.dataset} are scored on different images ({said} of them)"
        yield finding("different-images", text, *names)


def _metrics(group: Sequence[tuple[RunRecord, Artifact | None]]) -> Iterator[Finding]:
    definitions: dict[str, set[str]] = {}
    named = []
    for record, _ in group:
        scores = [m for m in record.measurements if _is_map(m.metric) and m.value is not None]
        for item in scores:
            said = ", ".join(str(item.conditions.get(key, "")) for key in ("definition", "iou"))
            definitions.setdefault(item.metric, set()).add(said)
        if scores:
            named.append((row_name(record), {item.metric for item in scores}))
    for metric, meanings in definitions.items():
        if len(meanings) > 1:
            text = f"{metric} means {' in one row, '.join(sorted(meanings))} in another"
            yield finding("metric-mixed", text, *(name for name, has in named if metric in has))
    sets = list({tuple(sorted(has)): None for _, has in named})
    apart = next((pair for pair in combinations(sets, 2) if not set(pair[0]) & set(pair[1])), None)
    if apart is not None:
        text = f"some rows have {', '.join(apart[0])}, others {', '.join(apart[1])}"
        yield finding("metric-mixed", text, *(name for name, _ in named))


def _is_map(metric: str) -> bool:
    return metric.startswith("accuracy.") and metric.endswith(("_map", "_map50"))


def _parents(group: Sequence[tuple[RunRecord, Artifact | None]]) -> Iterator[Finding]:
    floats = {
        (record.cell.model_name, artifact.weights_sha256)
        for record, artifact in group
        if artifact and artifact.precision == "float32"
    }
    for record, artifact in group:
        if artifact is None or artifact.precision == "float32":
            continue
        if (record.cell.model_name, artifact.weights_sha256) not in floats:
            text = f"no float export of these weights was scored on {record.cell.dataset}"
            yield finding("no-float-parent", text, row_name(record))


def _stages(group: Sequence[tuple[RunRecord, Artifact | None]]) -> Iterator[Finding]:
    """Rows of one model, data set and number of threads that do not time the same work."""
    timed = [pair for pair in group if pair[0].measurement(INFERENCE)]
    whole = {row_name(r): r.measurement(END_TO_END) is not None for r, _ in timed}
    if len(set(whole.values())) > 1:
        text = "only some of the compared rows were timed with pre- and post-processing"
        yield finding("stages-differ", text, *(name for name, has in whole.items() if not has))
    kinds = {row_name(r): getattr(a, "output_kind", "heads") for r, a in timed if a}
    if len(set(kinds.values())) > 1:
        text = "inference holds decoding or suppression in some of the compared rows, not in others"
        inside = (name for name, kind in kinds.items() if kind != "heads")
        yield finding("stages-differ", text, *inside)


def _prepared(pairs: Sequence[tuple[RunRecord, Artifact | None]]) -> Iterator[Finding]:
    """One artifact whose cells prepared images in different ways."""
    known = [record for record, _ in pairs if record.preprocessing and record.artifact_sha256]
    for group in _groups(known, lambda record: record.artifact_sha256):
        if len({record.preprocessing for record in group}) > 1:
            text = "evaluation and timing of one artifact prepared images differently"
            yield finding("preprocessing", text, *map(row_name, group))


def _effects(artifacts: Iterable[Artifact]) -> Iterator[Finding]:
    """Compression that did not reach the file."""
    every = list(artifacts)
    for one in every:
        twins = [o for o in every if (o.model, o.weights_sha256) == (one.model, one.weights_sha256)]
        floats = [other for other in twins if other.precision == "float32"]
        most = max((other.size_bytes for other in floats), default=0)
        if one.precision == "int8" and most and one.size_bytes >= FULL_SIZE * most:
            text = f"int8 and {one.size_bytes / 1e6:.1f} MB, float and {most / 1e6:.1f} MB"
            yield finding("no-effect", text, one.id)
        dense = [other for other in twins if not _sparse(other) and other.format == one.format]
        if _sparse(one) and any(one.size_bytes >= FULL_SIZE * other.size_bytes for other in dense):
            yield finding("no-effect", "sparse, but as large as the dense export", one.id)


def _sparse(artifact: Artifact) -> bool:
    """Whether the export says that zeros were left out."""
    options = (key for key, value in artifact.options.items() if value)
    return any("spars" in word for word in (artifact.exporter, artifact.recipe, *options))


def _recommended(records: Iterable[RunRecord]) -> Iterator[Finding]:
    for record in records:
        timed = record.measurement(INFERENCE)
        spread = stats.cov(timed.samples) if timed and len(timed.samples) > 1 else None
        if record.state == "tainted":
            text = "the recommended row was measured while the machine was busy or changed"
            yield finding("unfit-recommendation", text, row_name(record))
        elif spread is not None and spread > stats.UNSTABLE_COV:
            text = (
                f"the recommended row varies by {100 * spread:.1f} %, above"
                f" {100 * stats.UNSTABLE_COV:g} %"
            )
            yield finding("unfit-recommendation", text, row_name(record))
