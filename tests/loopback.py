"""A web server on loopback that can misbehave in every way a real one does."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What the server answers for one path.

    Attributes:
        breaks: for each request in turn, how many bytes of the body are sent before the connection
            ends; requests beyond the list get all.
        claims: the Content-Length that is said, if it shall be a lie.
        statuses: for each request in turn, an error to answer instead.
    """

    body: bytes = b""
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    claims: int | None = None
    ranges: bool = True
    etag: str | None = None
    stalls_s: float = 0.0
    redirect: str | None = None
    encoding: str | None = None
    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request."""

    @property
    def tag(self) -> str:
        return self.etag or f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


class Handler(BaseHTTPRequestHandler):
    pages: dict[str, Page]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = self.pages.get(self.path)
        if page is None:
            self._error(404)
            return
        page.asked.append(self.headers.get("Range"))
        if page.statuses:
            self._error(page.statuses.pop(0))
            return
        if page.redirect:
            self.send_response(302)
            self.send_header("Location", page.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(page)

    def _send(self, page: Page) -> None:
        start = self._start(page)
        if start is None:
            self._error(416)
            return
        body = page.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}"
            )
        self.send_header("Content-Length", str(len(body) if page.claims is None else page.claims))
        self.send_header("ETag", page.tag)
        if page.encoding:
            self.send_header("Content-Encoding", page.encoding)
        self.end_headers()
        part = body[: page.breaks.pop(0)] if page.breaks else body
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # a client that has seen enough hangs up
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(page.stalls_s)

    def _start(self, page: Page) -> int | None:
        """First byte to send, None where the range cannot be."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not page.ranges or found is None or self.headers.get("If-Range") != page.tag:
            return 0
        start = int(found[1])
        return start if start < len(page.body) else None

    def _error(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests look at `Page.asked`."""


@contextlib.contextmanager
def serving(**pages: Page) -> Iterator[tuple[str, dict[str, Page]]]:
    """``(address, pages by path)``; pages can be added while it serves."""
    table = {f"/{name}": page for name, page in pages.items()}
    handler = type("Pages", (Handler,), {"pages": table})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", table
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
