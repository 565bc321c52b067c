"""Many pictures by their addresses, side by side; each is decoded before it is kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from harness.cache import write_atomic
from harness.errors import BadImage, DownloadFailed
from harness.fetch.connection import Broken, Response, open_url, pieces
from harness.images import decode_image

AT_ONCE = 16
TRIES = 4
LARGEST = 64 << 20
TIMEOUT_S = 30.0


class Picture(NamedTuple):
    """Where a picture comes from and goes to."""

    url: str
    path: Path


def fetch_pictures(
    pictures: Sequence[Picture],
    *,
    quiet: bool = False,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Picture]:
    """Fetch all that are not there yet; what is there stays when this fails.

    Returns:
        Those that their publisher does not have (any more).

    Raises:
        DownloadFailed: a picture could not be fetched, or is none; the message names the first one
            and counts them. Pictures that arrived are kept, so that the same call goes on.
        ResultsError: the folder cannot be written.
    """
    todo = [picture for picture in pictures if not picture.path.is_file()]
    gone: list[Picture] = []
    failed: list[str] = []
    bar_lock = threading.Lock()
    show = True if quiet else None
    with tqdm(total=len(todo), desc="pictures", unit="image", disable=show) as bar:

        def one(picture: Picture) -> None:
            try:
                if not _fetch(picture, timeout_s, sleep):
                    gone.append(picture)
            except DownloadFailed as error:
                failed.append(str(error))
            with bar_lock:
                bar.update()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, todo))
    if failed:
        raise DownloadFailed(
            f"{len(failed)} of {len(todo)} pictures could not be fetched, the same command tries"
            f" them again; the first: {min(failed)}"
        )
    return gone


def _fetch(picture: Picture, timeout_s: float, sleep: Callable[[float], None]) -> bool:
    """Fetch one picture; False where the server does not have it."""
    for attempt in range(TRIES):
        try:
            response = open_url(picture.url, start=0, validator=None, timeout_s=timeout_s)
            with contextlib.closing(response.body):
                data = _all(response)
        except Broken as error:
            why = str(error)
            sleep(2.0**attempt)
            continue
        except DownloadFailed as error:
            if "404" in str(error) or "403" in str(error):
                return False
            raise
        try:
            decode_image(data)
        except BadImage:
            raise DownloadFailed(f"{picture.url} brought no picture: nothing was kept") from None
        write_atomic(picture.path, data)
        return True
    raise DownloadFailed(f"{picture.url}: {why}, {TRIES} tries")


def _all(response: Response) -> bytes:
    """The whole body. Raises Broken where it is shorter than was said, or far too long."""
    parts: list[bytes] = []
    size = 0
    for piece in pieces(response, 1 << 16):
        size += len(piece)
        if size > LARGEST:
            raise Broken(f"more than {LARGEST:,} bytes, which is no picture")
        parts.append(piece)
    if response.total is not None and size < response.total:
        raise Broken(f"the connection broke off at {size:,} of {response.total:,} bytes")
    return b"".join(parts)
