"""Parsers of the commands that read results."""

from __future__ import annotations

from pathlib import Path

from harness.cli_parts import Commands, add, add_base, add_folders, add_json


def add_results_commands(commands: Commands) -> None:
    """All of them."""
    _compare(commands)
    _pick(commands)
    _verify(commands)
    _results(commands)
    _pack(commands)
    _history(commands)


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
    add_base(parser)
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


def _pick(commands: Commands) -> None:
    parser = add(
        commands,
        "pick",
        "pick",
        "Say which export to ship on a device under limits, and why each other is refused.",
    )
    add_folders(parser)
    parser.add_argument("--device", metavar="NAME", help="a machine, by id or by devices.yaml")
    group = parser.add_argument_group("limits; what is not proven to keep one is refused")
    group.add_argument("--max-latency", metavar="TIME", help="of the median, such as 50ms")
    group.add_argument(
        "--latency",
        choices=["inference", "end-to-end"],
        default="inference",
        help="which time is limited and compared",
    )
    group.add_argument(
        "--min-map-ratio",
        type=float,
        metavar="R",
        help="of the float reference's mAP, such as 0.99",
    )
    group.add_argument("--max-size", metavar="SIZE", help="of the model's files, such as 4MB")
    group.add_argument(
        "--max-memory", metavar="SIZE", help="peak above the baseline, such as 200MB"
    )
    add_json(parser)


def _results(commands: Commands) -> None:
    parser = add(
        commands, "results", "results", "Bring results in from elsewhere; nothing is overwritten."
    )
    parser.add_argument(
        "action",
        choices=["add", "import-published"],
        help="add runs of another place, or figures that others published",
    )
    parser.add_argument("paths", nargs="*", type=Path, help="results folders, or a YAML file")
    parser.add_argument("--as", dest="name", metavar="NAME", help="call the added run so")
    add_base(parser)


def _pack(commands: Commands) -> None:
    parser = add(
        commands,
        "pack",
        "pack",
        "Make one file that a device with Python, numpy and a runtime checks and times.",
    )
    parser.add_argument("artifacts", nargs="+", type=Path, help="folders made by detbench export")
    parser.add_argument("-o", "--output", type=Path, default=Path("bundle.zip"))
    add_json(parser)


def _history(commands: Commands) -> None:
    parser = add(
        commands, "history", "history", "Find where a row got faster or slower, as a step in time."
    )
    add_folders(parser)
    parser.add_argument("--metric", default="latency.inference", help="a time with samples")
    add_json(parser)
