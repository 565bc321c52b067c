"""``detbench lint``: is the method behind these figures sound?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import msgspec

from harness import cli
from harness.errors import BadConfig
from harness.lint import lint_path
from harness.lint.rules import rules_table
from harness.records import Finding


def lint(options: argparse.Namespace) -> int:
    """Print every finding; exit code 1 where one is red."""
    if options.rules:
        print(rules_table())
        return 0
    if options.path is None:
        raise BadConfig("there is no PATH: give a results folder, an artifact or a record")
    found = lint_path(options.path)
    if options.json:
        print(json.dumps([msgspec.to_builtins(one) for one in found], indent=1))
    else:
        print(said(found))
    return cli.FAILED if any(one.level == "red" for one in found) else 0


def said(found: Sequence[Finding]) -> str:
    """The findings for a terminal: level, rule and sentence, then the places and the remedy."""
    lines = []
    for one in found:
        lines.append(f"{one.level:<5}  {one.rule}: {one.text}")
        lines += [f"       at  {place}" for place in one.where]
        lines.append(f"       do  {one.remedy}")
    red = sum(one.level == "red" for one in found)
    lines.append(f"{red} red, {len(found) - red} amber" if found else "nothing found")
    return "\n".join(lines)
