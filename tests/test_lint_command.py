"""``detbench lint``: what cannot be linted, and the list of rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cli
from harness.lint.rules import rules_table
from harness.registry import ROOT


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist: give a results folder"),
        ("{", "is not valid JSON"),
        ("[]", "is neither a record nor an artifact's manifest"),
        ('{"cell": 1}', "is not a RunRecord"),
        ('{"exporter": 1}', "is not a Artifact"),
    ],
)
def test_what_cannot_be_linted_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    path = tmp_path / "some file ü.json"
    if content is not None:
        path.write_text(content)
    assert cli.main(["lint", str(path)]) == cli.WRONG
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_the_documentation_lists_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lint", "--rules"]) == 0
    table = capsys.readouterr().out.strip()
    assert table == rules_table()
    assert table in (ROOT / "docs" / "linter.md").read_text(encoding="utf-8")
