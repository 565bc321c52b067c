"""A comparison in words: for the terminal, for a pull request, for machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from harness.comparison.deltas import Delta, Score, Speed
from harness.comparison.gates import Outcome
from harness.comparison.pairs import Paired, Unlike
from harness.report import scores
from harness.report.figures import count, milliseconds, percent, signed_points
from harness.report.render import markdown_table
from harness.report.tables import Column, Line, Table, Value, blank, text

SHOWN = 8
"""How many rows are named in one sentence before the rest is counted."""
METHOD = (
    "Faster and slower: p < 0.002 (Wilcoxon turn by turn for cells that took turns, else"
    " Mann–Whitney), and a ratio beyond the noise floor, beyond 1 % and"
    " beyond what the rounds scatter. The two sides were not timed in turns unless they are of one"
    " run, so a machine that changed between runs is not excluded."
)
TITLES = {"trips": "FAILS", "holds": "holds", "undecided": "cannot tell"}


def main_metric(deltas: Sequence[Delta]) -> str:
    """The score that is shown: the first that any pair has."""
    found = (metric for metric in scores.METRICS if any(metric in d.scores for d in deltas))
    return next(found, next(iter(scores.METRICS)))


def table(deltas: Sequence[Delta]) -> Table:
    """One line a pair."""
    metric = main_metric(deltas)
    columns = (
        Column(key="row", label="Row", wide=True),
        Column(key="a", label="A, inference p50", unit="ms", numeric=True),
        Column(key="b", label="B, inference p50", unit="ms", numeric=True),
        Column(key="verdict", label="B is"),
        Column(key="ratio", label="B / A", numeric=True),
        Column(key="end", label="End to end, B is"),
        Column(key="map", label=f"{scores.METRICS[metric]}, change", unit="points", numeric=True),
    )
    lines = [_line(delta, metric) for delta in deltas]
    return Table(key="comparison", caption=METHOD, columns=columns, lines=tuple(lines))


def markdown(paired: Paired, deltas: Sequence[Delta], outcomes: Sequence[Outcome]) -> str:
    """Everything, to paste into a pull request; what is unlike stands before any number."""
    parts = [
        f"### detbench: `{paired.b.name}` (B) against `{paired.a.name}` (A)",
        "\n".join(f"- {line}" for line in unlike_lines(paired, deltas)),
        str(markdown_table(table(deltas))),
        "\n".join(f"- {line}" for line in (*gate_lines(outcomes), *only_lines(paired, deltas))),
        METHOD,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(paired: Paired, deltas: Sequence[Delta], outcomes: Sequence[Outcome]) -> str:
    """The same for a terminal."""
    content = table(deltas)
    heads = [f"{c.label}, {c.unit}" if c.unit else c.label for c in content.columns]
    rows = [heads, *([_shown(value) for value in line.values] for line in content.lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    aligned = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        [
            f"B = {paired.b.name} against A = {paired.a.name}",
            *unlike_lines(paired, deltas),
            "",
            *aligned,
            "",
            *gate_lines(outcomes),
            *only_lines(paired, deltas),
            METHOD,
        ]
    )


def as_json(paired: Paired, deltas: Sequence[Delta], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same for machines: times in ns, scores 0..1."""
    return {
        "a": paired.a.name,
        "b": paired.b.name,
        "unlike": [dataclasses.asdict(item) for item in paired.unlike],
        "rows": [
            {
                "row": delta.pair.label,
                "unlike": [dataclasses.asdict(item) for item in delta.pair.unlike],
                "speed": {name: _speed_json(speed) for name, speed in delta.speeds.items()},
                "accuracy": {m: dataclasses.asdict(score) for m, score in delta.scores.items()},
            }
            for delta in deltas
        ],
        "only_a": paired.only_a,
        "only_b": paired.only_b,
        "gates": [dataclasses.asdict(outcome) for outcome in outcomes],
    }


def unlike_lines(paired: Paired, deltas: Sequence[Delta]) -> list[str]:
    """What differs beside the rows' figures, the sides' first; said even where it is nothing."""
    found = [f"unlike {_unlike(item)}" for item in paired.unlike]
    by_text: dict[str, list[str]] = {}
    for delta in deltas:
        for item in delta.pair.unlike:
            by_text.setdefault(_unlike(item), []).append(delta.pair.label)
    for said, labels in by_text.items():
        where = "every row" if len(labels) == len(deltas) else _named(labels)
        found.append(f"unlike {said} in {where}")
    return found or ["both sides are alike in machine, versions and artifacts"]


def gate_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Gates: each row that fails or is undecided, then the count of those that hold."""
    found = [
        f"gate {o.gate}: {TITLES[o.finding]} at {o.where}: {o.reason}"
        for o in outcomes
        if o.finding != "holds"
    ]
    for gate in dict.fromkeys(o.gate for o in outcomes):
        holding = sum(o.gate == gate and o.finding == "holds" for o in outcomes)
        total = sum(o.gate == gate for o in outcomes)
        found.append(f"gate {gate}: holds at {holding} of {count(total, 'row')}")
    return found


def only_lines(paired: Paired, deltas: Sequence[Delta]) -> list[str]:
    """Rows of one side alone, and why an interval of accuracy is not a paired one."""
    found = []
    for name, labels in (("A", paired.only_a), ("B", paired.only_b)):
        if labels:
            found.append(f"only in {name}: {_named(labels)}")
    reasons = {s.why for d in deltas for s in d.scores.values() if s.why}
    found += [f"accuracy is compared unpaired: {reason}" for reason in sorted(reasons)]
    return found


def _named(labels: Sequence[str]) -> str:
    more = len(labels) - SHOWN
    shown = [*labels[:SHOWN], f"{more} others"] if more > 1 else labels
    return "; ".join(shown)


def _unlike(item: Unlike) -> str:
    return f"{item.what}: {item.a} (A), {item.b} (B)"


def _line(delta: Delta, metric: str) -> Line:
    speed, end = delta.speeds["inference"], delta.speeds["end to end"]
    return Line(
        values=(
            text(delta.pair.label),
            text(milliseconds(speed.a.p50)) if speed.a else blank("not timed"),
            text(milliseconds(speed.b.p50)) if speed.b else blank("not timed"),
            text(speed.words),
            _ratio(speed),
            text(end.words) if end.a or end.b else blank("not timed"),
            _score(delta.scores.get(metric)),
        )
    )


def _ratio(speed: Speed) -> Value:
    verdict = speed.verdict
    if verdict is None or verdict.ratio is None or verdict.low is None or verdict.high is None:
        return blank("not known")
    return Value(text=f"{verdict.ratio:.3f}", note=f"{verdict.low:.3f} to {verdict.high:.3f}")


def _score(score: Score | None) -> Value:
    if score is None:
        return blank("not scored on the same images")
    note: str = score.how
    if score.low is not None and score.high is not None:
        note = f"{signed_points(score.low)} to {signed_points(score.high)}, {score.how}"
    shown = f"{signed_points(score.change)} (of {percent(score.a)} %)"
    return Value(text=shown, note=note)


def _shown(value: Value) -> str:
    return f"{value.shown} ({value.note})" if value.note else value.shown


def _speed_json(speed: Speed) -> dict[str, Any]:
    return {
        "outcome": speed.outcome,
        "words": speed.words,
        "a_p50_ns": speed.a.p50 if speed.a else None,
        "b_p50_ns": speed.b.p50 if speed.b else None,
        "verdict": msgspec.to_builtins(speed.verdict),
    }


def failed(outcomes: Iterable[Outcome], undecided: str) -> bool:
    """Whether a build fails: a gate trips, or one is undecided and that counts as failing."""
    counted = {"trips", "undecided"} if undecided == "fail" else {"trips"}
    return any(outcome.finding in counted for outcome in outcomes)
