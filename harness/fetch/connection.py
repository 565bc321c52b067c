"""One HTTP request for a file, from a given byte on; every way to fail becomes a sentence.

Only http and https, through the proxies of the environment; a redirect from https to http is
refused. Nothing is decompressed on the way, so that bytes are the publisher's own.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from harness import __version__
from harness.errors import DownloadFailed

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which another try may help."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Broken(Exception):  # never leaves this package
    """A try that failed and may be repeated; its text says why."""


class Unreached(Broken):
    """No server answered at all."""


class Stale(Exception):  # never leaves this package
    """The part at hand does not belong to what the server has now."""


class Response(NamedTuple):
    """An opened answer.

    Attributes:
        start: the first byte that comes; 0 where the server ignored the range.
        total: size of the whole file, where the server says it.
        validator: a strong ETag, or the date of the last change, to go on with later.
        body: the bytes, read with `pieces`.
    """

    start: int
    total: int | None
    validator: str | None
    body: IO[bytes]


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
            raise DownloadFailed(f"{req.full_url} redirects to {newurl}, which is not as safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, *, start: int, validator: str | None, timeout_s: float) -> Response:
    """Ask for the bytes of ``url`` from ``start`` on.

    Args:
        validator: what the part at hand belonged to; another file is then sent from its start.

    Raises:
        Broken: another try may help; as Unreached, only after a while.
        Stale: the part at hand reaches beyond what the server has.
        DownloadFailed: no other try will help.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadFailed(f"{url} is neither http nor https: correct the address")
    headers = {"User-Agent": f"detbench/{__version__}", "Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.build_opener(_SafeRedirects()).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:
            raise Stale from None
        raise _refused(url, error.code) from None
    except urllib.error.URLError as error:
        raise _unreached(url, error.reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_why(error)) from None
    return _understood(answer, url, start)


def pieces(response: Response, size: int) -> Iterator[bytes]:
    """The answer's bytes, at most ``size`` at a time. Raises Broken where the connection ends."""
    while True:
        try:
            piece = response.body.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(_why(error)) from None
        if not piece:
            return
        yield piece


def _understood(answer: Any, url: str, start: int) -> Response:
    headers = answer.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        answer.close()
        raise DownloadFailed(f"{url} came compressed though that was not asked: try another mirror")
    length = headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    begins = 0
    if answer.status == 206:
        found = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            answer.close()
            raise Stale
        begins = start
        total = int(found[2]) if found[2].isdecimal() else None
    tag = headers.get("ETag")
    strong = tag if tag and not tag.startswith("W/") else None
    return Response(begins, total, strong or headers.get("Last-Modified"), answer)


def _refused(url: str, code: int) -> Exception:
    meaning = http.client.responses.get(code, "unknown")
    if code in AGAIN:
        return Broken(f"the server answers {code} {meaning}")
    advice = {
        401: "it asks for a login",
        403: "it does not give the file to this machine",
        404: "the file has moved or was taken down",
        410: "the file was taken down",
    }.get(code, "it cannot give the file")
    return DownloadFailed(
        f"{url}: the server answers {code} {meaning}, {advice}: fetch it by other means"
    )


def _unreached(url: str, reason: object) -> Exception:
    host = urlsplit(url).hostname
    if isinstance(reason, socket.gaierror):
        return Unreached(f"the host {host} cannot be found, perhaps there is no network")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadFailed(f"{url}: the certificate of {host} is not valid: check the clock")
    if isinstance(reason, ConnectionRefusedError):
        return Unreached(f"the host {host} refuses the connection")
    return Broken(_why(reason))


def _why(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection broke off"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
