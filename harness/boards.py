"""Boards that a TVM RPC server runs on: how they are written, and the connection to one."""

from __future__ import annotations

import re
import socket
import time
from typing import Any, NamedTuple

from harness.errors import CellCrashed
from harness.extras import require

CONNECT_S = 10.0
"""A server that does not take a connection by then is not there."""

SESSION_S = 1800
"""The tracker or server ends a session after this, so that a lost client does not hold a board."""


class Address(NamedTuple):
    """Where a board is: a server, or with ``key`` a tracker."""

    host: str
    port: int
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.key}@{self.host}:{self.port}" if self.key else f"{self.host}:{self.port}"


def address(target: str) -> Address | None:
    """Read ``HOST:PORT`` or ``KEY@HOST:PORT``; None where it is neither."""
    found = re.fullmatch(r"(?:([\w.-]+)@)?([\w.-]+):(\d{1,5})", target)
    if found is None or not 0 < int(found[3]) < 65536:
        return None
    return Address(found[2], int(found[3]), found[1])


def connect(where: Address) -> Any:
    """A ``tvm.rpc.RPCSession``. Raises CellCrashed."""
    rpc = require("tvm.rpc", extra="tvm-runtime")
    try:
        # TVM waits for ever where nobody answers
        socket.create_connection((where.host, where.port), timeout=CONNECT_S).close()
    except OSError as error:
        what = "tracker" if where.key else "server"
        raise CellCrashed(
            f"no RPC {what} at {where} ({error.strerror or error}):"
            " start one there with  detbench device serve"
        ) from error
    try:
        if where.key is None:
            return rpc.connect(where.host, where.port, session_timeout=SESSION_S)
        tracker = rpc.connect_tracker(where.host, where.port)
        _wait_for_board(tracker, where)
        return tracker.request(where.key, session_timeout=SESSION_S, max_retry=1)
    except CellCrashed:
        raise
    except Exception as error:  # TVM's RPC raises several types
        raise CellCrashed(
            f"what answers at {where} is no RPC server of this TVM ({reason(error)})"
        ) from error


def _wait_for_board(tracker: Any, where: Address) -> None:
    """Until the tracker knows it: a board reports there some time after it has started.

    Raises:
        CellCrashed: it did not for `CONNECT_S` seconds.
    """
    until = time.monotonic() + CONNECT_S
    while True:
        keys = {
            server["key"].removeprefix("server:") for server in tracker.summary()["server_info"]
        }
        if where.key in keys:
            return
        if time.monotonic() > until:
            raise CellCrashed(
                f"the tracker at {where.host}:{where.port} has no board '{where.key}',"
                f" only {', '.join(sorted(keys)) or 'none'}:"
                f" start  detbench device serve --key {where.key}"
            )
        time.sleep(0.2)


def reason(error: Exception) -> str:
    """The last line of what TVM's RPC raised: the first ones are its call stack."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
