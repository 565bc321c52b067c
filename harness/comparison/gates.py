"""Limits that fail a build: ``latency.p50 > +5%``, ``coco_map < -0.5``, and what the evidence says.

A gate trips only where the limit is proven to be passed. For times that is METHOD's rule 7 on A's
samples scaled to the limit: "slower" trips, "faster" holds, all else is undecided. For accuracy the
95 % interval of the change must lie wholly beyond the limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.comparison.deltas import Comparison, Delta, bounds, relative
from harness.comparison.quantities import SIZES, TIMES, Quantity, parse
from harness.errors import BadConfig, BadInput
from harness.records import RunRecord
from harness.registry import suggest
from harness.report import scores

DEFAULT_FILE = Path("detbench-gate.yaml")
STAGES = {
    "latency.p50": "latency.inference",
    **{
        f"latency.{stage}.p50": f"latency.{stage}"
        for stage in ("inference", "preprocess", "postprocess", "end_to_end")
    },
}
ACCURACY = {metric.removeprefix("accuracy."): metric for metric in scores.METRICS}
EXACT = {"size": "size", "memory.peak": "memory.peak"}
KNOWN = (*STAGES, *ACCURACY, *EXACT)
Finding = Literal["trips", "holds", "undecided"]
_GATE = re.compile(r"\s*(?P<metric>[\w.]+)\s*(?P<op>[<>])\s*(?P<limit>[^<>=]+)")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One limit: fail where ``metric`` is ``op`` the limit."""

    text: str
    metric: str
    op: Literal["<", ">"]
    limit: Quantity


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a gate found at one pair of rows, or over all of them."""

    gate: str
    where: str
    finding: Finding
    reason: str


def parse_gate(text: str) -> Gate:
    """Read ``metric > limit`` or ``metric < limit``.

    Raises:
        BadInput: another form, an unknown metric, or a unit that does not fit the metric.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise BadInput(
            f"gate '{text}' is not 'metric > limit': write for example 'latency.p50 > +5%' or"
            " 'coco_map < -0.5'"
        )
    metric, where = match["metric"].removeprefix("accuracy."), f"gate '{text.strip()}'"
    if metric not in KNOWN:
        hint = " (times are compared by their median)" if metric.startswith("latency.") else ""
        raise BadInput(f"{where}: unknown metric '{metric}'{hint}: {suggest(metric, KNOWN)}")
    limit = parse(match["limit"], where)
    _check_unit(metric, limit, where)
    op: Literal["<", ">"] = "<" if match["op"] == "<" else ">"
    return Gate(text=text.strip(), metric=metric, op=op, limit=limit)


def _check_unit(metric: str, limit: Quantity, where: str) -> None:
    if metric in ACCURACY:
        good = limit.signed and limit.unit in ("", "%")
        wanted = "a change in AP points such as -0.5, or a share such as -1%"
    else:
        units = TIMES if metric in STAGES else SIZES
        good = limit.unit in units if not limit.signed else limit.unit == "%"
        wanted = f"a change such as +5%, or a limit in {', '.join(units)} without a sign"
    if not good or (limit.unit == "%" and limit.value <= -100):
        raise BadInput(f"{where}: '{metric}' takes {wanted}")


def read_gates(path: Path) -> tuple[list[Gate], Literal["pass", "fail"]]:
    """Gates of a file and what undecided ones shall do.

    Raises:
        BadConfig: no such file, not YAML, other keys. BadInput: a gate that cannot be read.
    """
    from harness.config import read_yaml

    plain = read_yaml(path, "gate file", "fail-if: ['latency.p50 > +5%']")
    unknown = set(plain) - {"fail-if", "undecided"}
    texts: Any = plain.get("fail-if")
    undecided = plain.get("undecided", "pass")
    if unknown or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise BadConfig(
            f"gate file {path} needs the key 'fail-if' with a list of gates, and may have"
            f" 'undecided'{f', not {sorted(map(str, unknown))}' if unknown else ''}"
        )
    if undecided not in ("pass", "fail"):
        raise BadConfig(f"gate file {path}: 'undecided' is {undecided!r}, expected pass or fail")
    return [parse_gate(text) for text in texts], undecided


def judge(gates: Sequence[Gate], comparison: Comparison, deltas: Sequence[Delta]) -> list[Outcome]:
    """Every gate at every pair that has its figure; rows that B lost are undecided."""
    found = []
    for gate in gates:
        here = [_at(gate, comparison, delta) for delta in deltas]
        judged = [outcome for outcome in here if outcome is not None]
        judged += [
            Outcome(gate=gate.text, where=label, finding="undecided", reason="not measured in B")
            for label in comparison.paired.only_a
        ]
        if not judged:
            reason = "no pair of rows has this figure"
            judged = [Outcome(gate=gate.text, where="all", finding="undecided", reason=reason)]
        found += judged
    return found


def _at(gate: Gate, comparison: Comparison, delta: Delta) -> Outcome | None:
    if gate.metric in STAGES:
        said = _time(gate, comparison, delta)
    elif gate.metric in ACCURACY:
        said = _score(gate, delta)
    else:
        said = _exact(gate, delta)
    if said is None:
        return None
    finding, reason = said
    return Outcome(gate=gate.text, where=delta.pair.label, finding=finding, reason=reason)


def _time(gate: Gate, comparison: Comparison, delta: Delta) -> tuple[Finding, str] | None:
    pair, metric = delta.pair, STAGES[gate.metric]
    if pair.a.latency is None and pair.b.latency is None:
        return None
    if not gate.limit.signed:
        return _absolute_time(gate, comparison, delta)
    plain = comparison.speed(pair, metric)
    if plain.outcome == "cannot tell" or plain.verdict is None or plain.verdict.ratio is None:
        return "undecided", plain.words.removeprefix("cannot tell: ")
    outcome = comparison.speed(pair, metric, 1 + gate.limit.value / 100).outcome
    reason = (
        f"{plain.verdict.ratio - 1:+.1%} (95 % interval {(plain.verdict.low or 1) - 1:+.1%} to"
        f" {(plain.verdict.high or 1) - 1:+.1%}, noise up to {plain.verdict.needed or 0:.1%})"
    )
    beyond = "slower" if gate.op == ">" else "faster"
    if outcome not in ("slower", "faster"):
        return "undecided", f"{reason}: too close to the limit to tell"
    return ("trips" if outcome == beyond else "holds"), reason


def _absolute_time(gate: Gate, comparison: Comparison, delta: Delta) -> tuple[Finding, str] | None:
    row = delta.pair.b
    pace = comparison.timings.pace(row, STAGES[gate.metric])
    floor = comparison.paired.floor(row)
    if pace is None or floor is None or (doubt := comparison.doubt(delta.pair)):
        return (
            "undecided",
            doubt if pace and floor is not None else "no licensed median or no floor",
        )
    limit = gate.limit.value * TIMES[gate.limit.unit]
    low, high = bounds(pace, floor)
    return _between(
        gate, limit, low, high, f"{pace.p50 / 1e6:.3g} ms ({low / 1e6:.3g} to {high / 1e6:.3g})"
    )


def _score(gate: Gate, delta: Delta) -> tuple[Finding, str] | None:
    score = delta.scores.get(ACCURACY[gate.metric])
    if score is None:
        return None
    if score.low is None or score.high is None:
        return "undecided", score.why or "no interval"
    points = gate.limit.unit == ""
    shares = (score.change, score.low, score.high) if points else relative(score)
    if shares is None:
        return "undecided", "A scores nothing, so a share of it means nothing"
    change, low, high = (100 * share for share in shares)
    unit = "points" if points else "%"
    reason = f"{change:+.2f} {unit} (95 % interval {low:+.2f} to {high:+.2f}, {score.how})"
    return _between(gate, gate.limit.value, low, high, reason)


def _exact(gate: Gate, delta: Delta) -> tuple[Finding, str] | None:
    read = _sizes if gate.metric == "size" else _memory
    first, second = (read(row.latency or row.accuracy) for row in (delta.pair.a, delta.pair.b))
    if second is None or (gate.limit.signed and first is None):
        return None
    if not gate.limit.signed:
        limit = gate.limit.value * SIZES[gate.limit.unit]
        low, high = min(second), max(second)
        return _between(gate, limit, low, high, f"{low / 1e6:.3g} to {high / 1e6:.3g} MB")
    assert first is not None
    low = 100 * (min(second) / max(first) - 1)
    high = 100 * (max(second) / min(first) - 1)
    reason = f"{low:+.1f} %" if low == high else f"{low:+.1f} to {high:+.1f} % over the rounds"
    return _between(gate, gate.limit.value, low, high, reason)


def _between(gate: Gate, limit: float, low: float, high: float, reason: str) -> tuple[Finding, str]:
    """Whether an interval lies beyond the limit, within it, or on both sides."""
    if (low > limit) if gate.op == ">" else (high < limit):
        return "trips", reason
    if (high <= limit) if gate.op == ">" else (low >= limit):
        return "holds", reason
    return "undecided", f"{reason}: the interval holds the limit"


def _sizes(record: RunRecord | None) -> list[float] | None:
    return [float(record.artifact_size_bytes)] if record and record.artifact_size_bytes else None


def _memory(record: RunRecord | None) -> list[float] | None:
    """Peak less baseline of each round."""
    if record is None:
        return None
    peak, base = (record.measurement(f"memory.{name}_bytes") for name in ("peak", "baseline"))
    if peak is None or base is None or peak.value is None or base.value is None:
        return None
    peaks, bases = peak.samples or (peak.value,), base.samples or (base.value,)
    above = [high - low for high, low in zip(peaks, bases, strict=False)]
    return above if min(above) > 0 else None
