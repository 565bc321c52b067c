"""``detbench pick``: which export to ship on a device, under limits."""

from __future__ import annotations

import argparse
import json
from typing import Any

from harness import cli, results
from harness.comparison.quantities import positive_bytes, positive_ns
from harness.devices.names import base_of, read_devices
from harness.devices.pick import Candidate, Choice, Limits
from harness.devices.pick import pick as choose
from harness.errors import BadInput
from harness.report.figures import duration, megabytes, percent
from harness.report.timings import END_TO_END, INFERENCE
from harness.verification.pages import load

STAGES = {"inference": INFERENCE, "end-to-end": END_TO_END}


def pick(options: argparse.Namespace) -> int:
    """Print what may ship and why all else may not; exit 1 where nothing may."""
    limits = _limits(options)
    folders = results.find_runs(options.results or [results.DEFAULT])
    runs = load(folders)
    devices = read_devices(base_of(folders) or results.DEFAULT)
    machines = sorted({run.machine_id for run in runs})
    if options.device:
        machine = devices.find(options.device, machines)
    elif len(machines) == 1:
        machine = machines[0]
    else:
        known = ", ".join(devices.name(machine) for machine in machines)
        raise BadInput(f"there are results of several machines: name one with --device ({known})")
    choice = choose(runs, machine, limits)
    if options.json:
        print(json.dumps(_json(choice), indent=1))
    else:
        print("\n".join(_lines(choice, devices.name(machine), options.latency)))
    return 0 if choice.best else cli.FAILED


def _limits(options: argparse.Namespace) -> Limits:
    ratio = options.min_map_ratio
    if ratio is not None and not 0 < ratio <= 1:
        raise BadInput(f"--min-map-ratio is {ratio:g}: expected above 0 and up to 1, such as 0.99")
    most, size, memory = options.max_latency, options.max_size, options.max_memory
    return Limits(
        stage=STAGES[options.latency],
        latency_ns=positive_ns(most, "--max-latency") if most else None,
        map_ratio=ratio,
        size_bytes=positive_bytes(size, "--max-size") if size else None,
        memory_bytes=positive_bytes(memory, "--max-memory") if memory else None,
    )


def _lines(choice: Choice, device: str, stage: str) -> list[str]:
    found = [
        f"On {device}, {stage} p50, nothing beats:" if choice.best else f"Nothing fits on {device}."
    ]
    found += [f"  {candidate.label}: {_figures(candidate)}" for candidate in choice.best]
    if choice.refused:
        found.append("Refused:")
        found += [f"  {c.label}: {'; '.join(c.refused)}" for c in choice.refused]
    return found


def _figures(candidate: Candidate) -> str:
    parts = [
        duration(candidate.pace.p50) if candidate.pace else "not timed",
        f"mAP {percent(candidate.score)} %" if candidate.score is not None else "not scored",
        f"{megabytes(candidate.size_bytes)} MB" if candidate.size_bytes else "size not known",
    ]
    return ", ".join(parts)


def _json(choice: Choice) -> dict[str, Any]:
    def one(candidate: Candidate) -> dict[str, Any]:
        return {
            "row": candidate.label,
            "p50_ns": candidate.pace.p50 if candidate.pace else None,
            "map": candidate.score,
            "size_bytes": candidate.size_bytes,
            "refused": candidate.refused,
        }

    return {
        "machine": choice.machine,
        "metric": choice.metric,
        "best": [one(candidate) for candidate in choice.best],
        "refused": [one(candidate) for candidate in choice.refused],
    }
