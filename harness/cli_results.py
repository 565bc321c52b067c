"""Parsers of the commands that read results."""

from __future__ import annotations

from pathlib import Path

from harness.cli_parts import Commands, add, add_json


def add_results_commands(commands: Commands) -> None:
    """All of them."""
    _compare(commands)
    _verify(commands)


def _compare(commands: Commands) -> None:
    parser = add(
        commands,
        "compare",
        "compare",
        "Say what is faster, slower or less accurate in B than in A, and fail where a gate trips.",
    )
    what = "a run's folder, a machine's, a cell's record, or a git revision within the results"
    parser.add_argument("a", metavar="A", help=what)
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: results/")
    group = parser.add_argument_group("gates: exit 1 where one trips")
    group.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="GATE",
        help="such as 'latency.p50 > +5%%' or 'coco_map < -0.5' (AP points)",
    )
    group.add_argument(
        "--gate",
        nargs="?",
        type=Path,
        const=Path("detbench-gate.yaml"),
        metavar="FILE",
        help="gates from a file (default: detbench-gate.yaml)",
    )
    group.add_argument(
        "--undecided",
        choices=["pass", "fail"],
        help="what a gate does that the evidence cannot decide (default: pass, and say so)",
    )
    parser.add_argument("--markdown", action="store_true", help="for a pull request")
    add_json(parser)


def _verify(commands: Commands) -> None:
    parser = add(
        commands,
        "verify",
        "verify",
        "Compute every figure of records and published tables again; fail on any that differs.",
    )
    what = "results folders, reports, or Markdown with a bound table (default: results/)"
    parser.add_argument("targets", nargs="*", type=Path, metavar="PATH", help=what)
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="where the records of a page are"
    )
    add_json(parser)
