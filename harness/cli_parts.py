"""What the parsers of all commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # no public name


def add(commands: Commands, name: str, module: str, text: str) -> argparse.ArgumentParser:
    """A command whose work is ``harness.commands.<module>.<name>``."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(module=module)
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="a Python file that registers models, exporters or runners",
    )
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def add_weights(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a checkpoint, or a name of detbench list weights; default: the shipped one",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="classes of --weights, one a line, background first"
    )


def add_folders(parser: argparse.ArgumentParser) -> None:
    """The results that a command reads."""
    parser.add_argument("results", nargs="*", type=Path, help="run, machine or results folders")


def add_base(parser: argparse._ActionsContainer) -> None:
    """Where results are kept."""
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: results/")


def add_setting(parser: argparse._ActionsContainer, text: str | None = None) -> None:
    """``--set KEY=VALUE``, as often as one likes; ``text`` says which keys."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=text
    )
