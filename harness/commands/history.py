"""``detbench history``: where a row got faster or slower, over all records of a machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from harness import results
from harness.history.timeline import Line, lines

BARS = "▁▂▃▄▅▆▇█"
FLAT = 1.05
"""Lines that vary by less are drawn flat rather than blown up."""


def history(options: argparse.Namespace) -> int:
    """Print each row's course; exit 0 whatever it is, for what is a step is not always a fault."""
    found = lines(results.find_runs(options.results or [results.DEFAULT]), options.metric)
    if options.json:
        plain = [{**asdict(line), "course": line.course._asdict()} for line in found]
        print(json.dumps(plain, indent=1))
    else:
        print("\n".join(text for line in found for text in _said(line)))
    return 0


def _said(line: Line) -> list[str]:
    medians = [point.median for point in line.points]
    head = (
        f"{line.row} ({line.machine}): {len(medians)} points,"
        f" {medians[0] / 1e6:.3g} to {medians[-1] / 1e6:.3g} ms  {_bars(medians)}"
    )
    found = [head]
    for step in line.course.steps:
        point = line.points[step.at]
        how = "slower" if step.ratio > 1 else "faster"
        times = max(step.ratio, 1 / step.ratio)
        when = f"{point.revision[:12]} ({point.started_at})"
        found.append(f"  step: {times:.3f}× {how} from {when} on")
    if line.course.kind == "drift":
        found.append(f"  drift: {line.course.drift - 1:+.1%} from first to last, no step")
    elif line.course.kind == "too short":
        found.append("  too short to tell: a step needs three points before it and three after")
    elif not line.course.steps:
        found.append("  steady: no step beyond the noise")
    if line.left_out:
        found.append(f"  {line.left_out} tainted or smoke records left out")
    return found


def _bars(medians: Sequence[float]) -> str:
    low, high = min(medians), max(max(medians), FLAT * min(medians))
    return "".join(BARS[round((m - low) / (high - low) * (len(BARS) - 1))] for m in medians)
