"""Is the method sound? Rules over manifests, records and what is compared; `docs/linter.md`.

A finding is red where a figure is wrong or a comparison false, amber where a figure holds but says
less than it seems to. Findings are derived on reading, so that old records meet new rules; what a
record's own rules said when it was written stands in the record as well.
"""

from harness.lint.compared import RunView, lint_runs
from harness.lint.paths import lint_path
from harness.lint.rules import RULES, Rule
from harness.lint.single import lint_artifact, lint_record

__all__ = [
    "RULES",
    "Rule",
    "RunView",
    "lint_artifact",
    "lint_path",
    "lint_record",
    "lint_runs",
]
