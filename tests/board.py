"""A board at a TVM tracker that fails on demand: a real server behind a relay that misbehaves.

The relay registers itself at a real tracker and passes everything on until a module with a name
that it knows is uploaded; from then on it does to that session what the name asks for.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Fault = Literal["dies", "hangs", "wrong values", "garbage"]
GRACE = 4096
"""Bytes that the board still answers after the upload: it fails in the middle of its work."""
OUTPUTS = 1024
"""Messages as long as this hold outputs, all others are control."""


@contextlib.contextmanager
def offering(
    tracker: tuple[str, int], key: str, server: tuple[str, int], faults: Mapping[bytes, Fault]
) -> Iterator[Relay]:
    """Offer the server at the tracker under a key, with faults by a part of the module's name."""
    relay = Relay(tracker, key, server, faults)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join(10)


class Relay:
    """Serves one client after the other, as TVM's server does. ``failed`` lists what it did."""

    def __init__(
        self,
        tracker: tuple[str, int],
        key: str,
        server: tuple[str, int],
        faults: Mapping[bytes, Fault],
    ) -> None:
        import tvm.rpc.base as protocol

        self._protocol: Any = protocol
        self._key, self._server, self._faults = key, server, faults
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._tracker = socket.create_connection(tracker)
        self._tracker.sendall(protocol.RPC_TRACKER_MAGIC.to_bytes(4, "little"))
        protocol.recvall(self._tracker, 4)
        port = self._listening.getsockname()[1]
        self._tell("UPDATE_INFO", {"key": f"server:{key}", "addr": ("127.0.0.1", port)})
        self._put = (key, (port, ""), "127.0.0.1")
        self._over = threading.Event()
        self.failed: list[Fault] = []

    def _tell(self, code: str, *words: Any) -> None:
        protocol = self._protocol
        protocol.sendjson(self._tracker, [getattr(protocol.TrackerCode, code), *words])
        assert protocol.recvjson(self._tracker) == protocol.TrackerCode.SUCCESS

    def serve(self) -> None:
        """Until `stop`: offer the board, take the client that the tracker sends, relay."""
        while not self._over.is_set():
            self._tell("PUT", *self._put)
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, socket.create_connection(self._server) as server:
                self._relay(client, server)

    def stop(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._tracker.close()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        fault: Fault | None = None
        answered = 0
        while not self._over.is_set():
            ready, _, _ = select.select([client, server], [], [], 0.2)
            for source in ready:
                with contextlib.suppress(ConnectionError):
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is client:
                        found = next((f for name, f in self._faults.items() if name in data), None)
                        fault = fault or found
                    else:
                        answered += len(data) if fault else 0
                        if fault and (answered > GRACE or fault == "wrong values"):
                            spoilt = self._spoil(fault, data)
                            if spoilt is None:
                                return
                            data = spoilt
                    (server if source is client else client).sendall(data)

    def _spoil(self, fault: Fault, data: bytes) -> bytes | None:
        """What the client gets in place of ``data``; None ends the connection."""
        if fault not in self.failed:
            self.failed.append(fault)
        if fault == "hangs":
            return b""
        if fault == "garbage":
            return bytes(byte ^ 0xA5 for byte in data)
        if fault == "wrong values" and len(data) >= OUTPUTS:
            middle = len(data) // 2
            return data[:middle] + bytes(512) + data[middle + 512 :]
        return data if fault == "wrong values" else None
