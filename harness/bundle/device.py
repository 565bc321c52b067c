"""What runs on the device, in the unpacked bundle: golden answers, then a sweep over threads."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from harness.artifacts import GOLDEN_DATA
from harness.commands.run import carry_out
from harness.config import Latency, Matrix
from harness.errors import BadConfig, DetbenchError
from harness.plan import Plan, plan_artifact
from harness.registry import ROOT
from harness.sweep import default_threads
from harness.timing import TIERS


def main(arguments: list[str]) -> int:
    """Run the bundle's command; answers the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options) if options.command == "run" else _list()
    except DetbenchError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python bundle.zip")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is in this bundle")
    run = commands.add_parser("run", help="check the golden answers, then time over thread counts")
    run.add_argument("--out", type=Path, default=Path("results"), help="folder for the records")
    run.add_argument("--name", default="bundle", help="name of the run")
    run.add_argument("--threads", help="such as 1,2,4 (default: 1 and all cores)")
    run.add_argument("--tier", choices=list(TIERS), default="rapid")
    run.add_argument("--rounds", type=int, default=2)
    run.add_argument("--timeout-s", type=int, default=600)
    run.add_argument("--dry-run", action="store_true")
    run.add_argument("--quiet", action="store_true")
    run.add_argument("--allow-tainted", action="store_true")
    run.add_argument("--json", action="store_true")
    run.set_defaults(no_report=True)
    return parser


def _folders() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "artifacts").glob("*/artifact.json"))


def _list() -> int:
    from harness.artifacts import load

    for folder in _folders():
        artifact = load(folder)
        print(
            f"{artifact.id}  {artifact.format}  {artifact.precision}  {artifact.size_bytes} bytes"
        )
    return 0


def _run(options: argparse.Namespace) -> int:
    options.results = Path(os.environ.get("DETBENCH_CALLED_FROM", ".")) / options.out
    matrix = Matrix(
        name=options.name,
        measures=("parity", "latency"),
        threads=_threads(options.threads),
        data=GOLDEN_DATA,
        latency=Latency(tier=options.tier, rounds=options.rounds),
        timeout_s=options.timeout_s,
    )
    plans = [plan_artifact(folder, matrix) for folder in _folders()]
    cells = [cell for plan in plans for cell in plan.cells]
    left_out = {line: None for plan in plans for line in plan.left_out}
    return carry_out(Plan(tuple(cells), tuple(left_out)), matrix, options)


def _threads(text: str | None) -> tuple[int, ...]:
    if text is None:
        return default_threads()
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise BadConfig(f"--threads '{text}' is no list of counts: write for example 1,2,4")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
