"""``detbench doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from typing import NamedTuple

from harness import results
from harness.cache import cache_dir
from harness.errors import ResultsError
from harness.extras import installed
from harness.interfaces import EXPORTERS, RUNNERS
from harness.machine import machine_id, machine_record, state, usable_cores
from harness.machine_speed import measure
from harness.provenance import versions
from harness.weights import shipped_manifests


class Check(NamedTuple):
    """One finding. ``remedy`` is empty where all is well."""

    what: str
    found: str
    remedy: str = ""


def doctor(options: argparse.Namespace) -> int:
    """Print every check; exit code 0 unless something stands in the way of any run."""
    checks = [_python(), *_frameworks(), _compiler(), *_folders(), _weights(), *_machine()]
    checks += _speed() if options.speed else []
    if options.json:
        print(json.dumps([check._asdict() for check in checks], indent=1))
    else:
        width = max(len(check.what) for check in checks)
        for check in checks:
            mark = "--" if check.remedy else "ok"
            tail = f": {check.remedy}" if check.remedy else ""
            print(f"{mark}  {check.what:<{width}}  {check.found}{tail}")
    blocking = [check for check in checks if check.remedy and check.what in BLOCKING]
    return 1 if blocking else 0


BLOCKING = ("python", "cache folder", "results folder", "runtimes")


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Check("python", version, "" if supported else "use Python 3.11 or 3.12")


def _frameworks() -> list[Check]:
    checks, usable = [], 0
    for kind, registry in (("exporter", EXPORTERS), ("runner", RUNNERS)):
        for name in registry.names():
            plugin = registry.get(name)
            absent = [module for module in plugin.modules if not installed(module)]
            found = ", ".join(f"{k} {v}" for k, v in versions(plugin.modules).items())
            remedy = f"run  pip install -e '.[{plugin.extra}]'" if absent else ""
            usable += kind == "runner" and not absent and bool(plugin.modules)
            missing = f"{', '.join(absent)} not installed"
            checks.append(Check(f"{kind} {name}", missing if absent else found or "ready", remedy))
    remedy = "" if usable else "install at least one, for example  pip install -e '.[litert]'"
    return [*checks, Check("runtimes", f"{usable} installed", remedy)]


def _compiler() -> Check:
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    remedy = "" if found else "torch_int8 and tvm_dense need one (Debian: apt install g++)"
    return Check("C++ compiler", found or "none", remedy)


def _folders() -> list[Check]:
    checks = []
    for what in ("cache folder", "results folder"):
        try:
            folder = cache_dir() if what == "cache folder" else results.DEFAULT
            free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
            writable = os.access(folder if folder.exists() else folder.parent, os.W_OK)
            remedy = "" if writable else "make it writable, or choose another one"
            if free < 2e9:
                remedy = "free some space: a default run needs about 2 GB"
            checks.append(Check(what, f"{folder}, {free / 1e9:.0f} GB free", remedy))
        except ResultsError as error:
            checks.append(Check(what, "cannot be made", str(error)))
    return checks


def _weights() -> Check:
    found = [manifest["model"] for manifest in shipped_manifests()]
    return Check("shipped weights", ", ".join(found) or "none", "" if found else "check out again")


def _machine() -> list[Check]:
    now = state()
    resolution = min(_ticks())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = "stop other programs before timing" if load > 0.5 else ""
    governor = now.governor
    slow = "set it to performance before timing" if governor in ("powersave", "ondemand") else ""
    return [
        Check("machine", machine_id(machine_record())),
        Check("timer", f"{resolution} ns", "" if resolution < 1_000 else "timings will be batched"),
        Check("load", f"{load:.2f}", busy),
        Check("governor", governor or "not readable", slow),
    ]


def _speed() -> list[Check]:
    """What the machine can do at one thread and at all, see `harness.machine_speed`."""
    return [
        Check(
            f"speed, {speed.threads} thread{'s' * (speed.threads > 1)}",
            f"{speed.flops / 1e9:.1f} GFLOP/s in float32, {speed.bandwidth / 1e9:.1f} GB/s copied",
        )
        for speed in measure((1, usable_cores()))
    ]


def _ticks() -> list[int]:
    found = []
    for _ in range(200):
        start = time.perf_counter_ns()
        while (now := time.perf_counter_ns()) == start:
            pass
        found.append(now - start)
    return found
