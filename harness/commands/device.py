"""``detbench device``: a TVM RPC server or tracker that ends by itself."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import msgspec

from harness import machine
from harness.cpu_flags import cpu_flags
from harness.errors import BadConfig, Unsupported
from harness.extras import require
from harness.registry import ROOT

SERVER_PORT, TRACKER_PORT = 9090, 9190


def device(options: argparse.Namespace) -> int:
    """Serve until the time is over or a signal comes."""
    if not 0 < options.hours <= 24 * 31:
        raise BadConfig(f"--hours is {options.hours:g}: give more than 0 and at most a month, 744")
    if (options.tracker is None) != (options.key is None):
        raise BadConfig(
            "--tracker and --key go together: give both, as --tracker HOST:9190 --key rpi4"
        )
    # A server needs neither compiler nor torch, which TVM loads where they are, for seconds.
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"
    # It runs in a process of its own, which must find `introduce`.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.getenv("PYTHONPATH"))))
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # "not to be found", to Python
    serving = _track(options) if options.what == "track" else _serve(options)
    over = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        over.wait(options.hours * 3600)
    finally:
        serving.terminate()
    return 0


def introduce() -> None:
    """Let a client ask what this board is, by the function that `tvm_rpc` calls."""
    register = require("tvm_ffi", extra="tvm-runtime").register_global_func
    here = machine.machine_record()
    facts = {
        **msgspec.to_builtins(here),
        "apache-tvm": str(require("tvm", extra="tvm-runtime").__version__),
        "cpu-flags": sorted(cpu_flags()),
    }
    register("detbench.board", lambda: json.dumps(facts), override=True)


def _serve(options: argparse.Namespace) -> Any:
    """Start a server, and say how to reach it."""
    rpc = require("tvm.rpc", extra="tvm-runtime")
    port = options.port or SERVER_PORT
    tracker = _address(options.tracker) if options.tracker else None
    try:
        server = rpc.Server(
            host=options.host,
            port=port,
            port_end=port + 1,
            tracker_addr=tracker,
            key=options.key or "",
            silent=True,
            server_init_callback=introduce,
        )
    except Exception as error:  # TVM's server raises several types, and OSError
        raise _refused(options, port, error) from error
    target = f"{options.key}@{options.tracker}" if tracker else f"{options.host}:{server.port}"
    _say(f"serving at {options.host}:{server.port} for {options.hours:g} h", options)
    print(f"detbench latency ARTIFACT --runners tvm_rpc --target {target}", flush=True)
    return server


def _track(options: argparse.Namespace) -> Any:
    """Start a tracker, and say how to reach it."""
    tracker_module = require("tvm.rpc.tracker", extra="tvm-runtime")
    port = options.port or TRACKER_PORT
    try:
        tracker = tracker_module.Tracker(
            host=options.host, port=port, port_end=port + 1, silent=True
        )
    except Exception as error:  # TVM's tracker raises several types, and OSError
        raise _refused(options, port, error) from error
    _say(f"tracking at {options.host}:{tracker.port} for {options.hours:g} h", options)
    where = f"{options.host}:{tracker.port}"
    print(f"detbench device serve --tracker {where} --key KIND", flush=True)
    return tracker


def _say(sentence: str, options: argparse.Namespace) -> None:
    print(f"{sentence}; stop with Ctrl-C; whoever reaches {options.host} can run code here")


def _refused(options: argparse.Namespace, port: int, error: Exception) -> Unsupported:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return Unsupported(
        f"cannot listen at {options.host}:{port} ({reason}): give another --host or --port"
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise BadConfig(f"--tracker {text} is not HOST:PORT: write for example 192.168.1.5:9190")
    return host, int(port)
