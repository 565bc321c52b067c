"""``detbench compare A B``: what changed between two sets of records, and whether it may ship."""

from __future__ import annotations

import argparse
import json
from typing import Literal

from harness import cli, results
from harness.comparison import gates, render
from harness.comparison.deltas import Comparison
from harness.comparison.gates import Gate
from harness.comparison.pairs import pair
from harness.comparison.sides import resolve


def compare(options: argparse.Namespace) -> int:
    """Say what is faster and what lost accuracy; exit 1 where a gate fails."""
    asked, undecided = _gates(options)
    base = options.results or results.DEFAULT
    paired = pair(resolve(options.a, base), resolve(options.b, base))
    comparison = Comparison(paired)
    deltas = comparison.deltas()
    outcomes = gates.judge(asked, comparison, deltas)
    if options.json:
        print(json.dumps(render.as_json(paired, deltas, outcomes), indent=1))
    elif options.markdown:
        print(render.markdown(paired, deltas, outcomes), end="")
    else:
        print(render.plain(paired, deltas, outcomes))
    return cli.FAILED if render.failed(outcomes, undecided) else 0


def _gates(options: argparse.Namespace) -> tuple[list[Gate], Literal["pass", "fail"]]:
    """Gates of the file and of the command line, read before any record is."""
    asked: list[Gate] = []
    undecided: Literal["pass", "fail"] = "pass"
    if options.gate is not None:
        asked, undecided = gates.read_gates(options.gate)
    asked += [gates.parse_gate(text) for text in options.fail_if]
    return asked, options.undecided or undecided
