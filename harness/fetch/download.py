"""Fetch one file: progress, resume, bounded tries, verification, and only then a place in a folder.

The bytes grow in ``.NAME.part``; beside it, ``.NAME.part.json`` says which version of the file they
belong to (the server's ETag, or its date), so that a later call goes on where this one broke off
only if the file is still the same. Only a verified file gets its name; a wrong one leaves nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import msgspec
from tqdm import tqdm

from harness.cache import write_atomic
from harness.errors import DownloadFailed, ResultsError
from harness.fetch.connection import Broken, Response, Stale, Unreached, open_url, pieces
from harness.fetch.remote import Remote, check_pin, verify
from harness.records import Record

TRIES = 5
"""Tries in a row that bring less than `STEP` new bytes before it is given up."""
STEP = 1 << 20
TIMEOUT_S = 30.0
"""Longest silence of the server."""
PIECE = 1 << 16


class Kept(Record, frozen=True, kw_only=True):
    """What the bytes of a part belong to."""

    url: str
    validator: str | None


def download(
    remote: Remote,
    target: Path,
    *,
    quiet: bool = False,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The verified file at ``target``; nothing is fetched where it is there already.

    Args:
        remote: what to fetch; its ``member`` is not looked at.
        sleep: waits between tries.

    Raises:
        DownloadFailed: it cannot be fetched, or is not what was published. A wrong file is
            deleted; a part is kept only if it can be resumed.
        ResultsError: the folder cannot be written.
    """
    if target.is_file():
        with contextlib.suppress(DownloadFailed):
            verify(target, remote)
            check_pin(target, remote, target)
            return target
    part = target.with_name(f".{target.name}.part")
    with _locked(part):
        _fill(remote, part, quiet=quiet, timeout_s=timeout_s, sleep=sleep)
        publish(part, remote, target)
        _forget(part)
    return target


def publish(path: Path, remote: Remote, target: Path) -> None:
    """Verify the bytes at ``path`` and give them their place; a wrong file is deleted.

    Raises:
        DownloadFailed: they are not what was published.
    """
    try:
        verify(path, remote)
        warning = check_pin(path, remote, target)
    except DownloadFailed:
        _forget(path)
        raise
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(path, target)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _fill(
    remote: Remote,
    part: Path,
    *,
    quiet: bool,
    timeout_s: float,
    sleep: Callable[[float], None],
) -> None:
    """Try until the part is whole."""
    failed = 0
    begun = furthest = _size(part)
    name = part.name.removeprefix(".").removesuffix(".part")
    with tqdm(
        desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=True if quiet else None
    ) as bar:
        while True:
            try:
                _try_once(remote, part, bar, timeout_s)
                return
            except Stale:
                _forget(part)
                why = "the server has another file than before"
            except Broken as error:
                why = str(error)
                if isinstance(error, Unreached) and _size(part) == begun:
                    raise DownloadFailed(_given_up(remote, part, why)) from None
            reached = _size(part)
            failed = 0 if reached >= furthest + STEP else failed + 1
            furthest = max(furthest, reached)
            if failed >= TRIES:
                raise DownloadFailed(_given_up(remote, part, why)) from None
            sleep(2.0 ** min(failed, 5))


def _try_once(remote: Remote, part: Path, bar: tqdm[NoReturn], timeout_s: float) -> None:
    """One connection. Raises Broken, Stale and DownloadFailed."""
    validator = _validator(remote, part)
    start = _size(part) if validator else 0
    if start and start == remote.size_bytes:
        return
    response = open_url(remote.url, start=start, validator=validator, timeout_s=timeout_s)
    with contextlib.closing(response.body):
        _check_offer(remote, response, part)
        _write_kept(part, Kept(url=remote.url, validator=response.validator))
        bar.total = response.total or remote.size_bytes
        bar.n = response.start
        bar.refresh()
        _receive(remote, response, part, bar)
    if response.total is not None and _size(part) < response.total:
        raise Broken(f"the connection broke off at {_size(part):,} of {response.total:,} bytes")


def _check_offer(remote: Remote, response: Response, part: Path) -> None:
    """Refuse before the first byte what cannot be right, or cannot be kept."""
    expected = remote.size_bytes
    if expected is not None and response.total not in (None, expected):
        _forget(part)
        raise DownloadFailed(
            f"{remote.url} offers {response.total:,} bytes, expected {expected:,}: the publisher's"
            " file or a proxy on the way changed"
        )
    total = response.total or expected
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - response.start > free:
        raise _full(part, total - response.start, free)


def _receive(remote: Remote, response: Response, part: Path, bar: tqdm[NoReturn]) -> None:
    limit = remote.size_bytes
    try:
        with part.open("r+b" if response.start else "wb") as stream:
            stream.seek(response.start)
            stream.truncate()
            for piece in pieces(response, PIECE):
                stream.write(piece)
                bar.update(len(piece))
                if limit is not None and stream.tell() > limit:
                    break  # more than was published: verification says so
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            missing = (response.total or _size(part)) - _size(part)
            raise _full(part, missing, shutil.disk_usage(part.parent).free) from None
        raise _unwritable(part, error) from None


def _full(part: Path, needed: int, free: int) -> DownloadFailed:
    return DownloadFailed(
        f"the disk of {part.parent} is full: {needed:,} more bytes are needed and {free:,} are"
        " free: free space or set DETBENCH_CACHE to another disk; what is here will be resumed"
    )


def _unwritable(part: Path, error: OSError) -> ResultsError:
    return ResultsError(
        f"{part.parent} cannot be written ({error.strerror}): choose another folder"
    )


def _given_up(remote: Remote, part: Path, why: str) -> str:
    have = _size(part) if _validator(remote, part) else 0
    if not have:
        _forget(part)
    later = f"the same command goes on from byte {have:,}" if have else "try again later"
    return f"{remote.url} could not be fetched ({why}): {later}"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _kept_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _validator(remote: Remote, part: Path) -> str | None:
    """What the part belongs to, where it can be resumed."""
    try:
        kept = msgspec.json.decode(_kept_path(part).read_bytes(), type=Kept)
    except (OSError, msgspec.DecodeError):
        return None
    return kept.validator if kept.url == remote.url else None


def _write_kept(part: Path, kept: Kept) -> None:
    write_atomic(_kept_path(part), msgspec.json.encode(kept))


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _kept_path(part).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Only one process at a time fills a part; the kernel frees the lock of one that died."""
    lock = part.with_name(f"{part.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("wb")
    except OSError as error:
        raise _unwritable(part, error) from None
    with stream:
        try:
            import fcntl
        except ImportError:  # not on Windows: two calls at once then fail verification
            yield
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DownloadFailed(
                f"{part.parent / part.name} is being fetched by another process: wait for it"
            ) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
