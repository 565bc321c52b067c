"""A published file: where it lies, and what its bytes must be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from harness.cache import sha256_file, write_atomic
from harness.errors import DownloadFailed
from harness.records import Record

BLOCK = 1 << 20


class Remote(Record, frozen=True, kw_only=True):
    """A file at ``url``. What its publisher says of it is None where nothing is known.

    ``git_blob`` is git's name of the content: SHA-1 of ``blob <size>\\0`` and the bytes.
    ``member`` is the one file that is wanted from an archive at ``url``: size and hashes are then
    the member's.
    """

    url: str
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    git_blob: str | None = None
    member: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the url's path, or of the member's."""
        name = unquote((self.member or urlsplit(self.url).path).rpartition("/")[2])
        return name if name not in ("", ".", "..") else "download"

    @property
    def hashes(self) -> dict[str, str]:
        """The known hashes by their names; empty where the content is not pinned."""
        known = {"SHA-256": self.sha256, "MD5": self.md5, "git blob id": self.git_blob}
        return {name: value for name, value in known.items() if value is not None}


class Pin(Record, frozen=True, kw_only=True):
    """What a file was when it was first fetched, where its publisher says nothing of its hash."""

    url: str
    size_bytes: int
    sha256: str
    fetched_at: str


def git_blob_id(path: Path) -> str:
    """Git's name of a file's content, as hex."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    return _updated(digest, path)


def md5_file(path: Path) -> str:
    """MD5 of a file's bytes, as hex: what the publishers of VOC and COCO give."""
    return _updated(hashlib.md5(usedforsecurity=False), path)


def verify(path: Path, remote: Remote) -> None:
    """Hold a fetched file to everything that is known of it.

    Raises:
        DownloadFailed: its size or one of its hashes is another.
    """
    size = path.stat().st_size
    if remote.size_bytes is not None and size != remote.size_bytes:
        raise DownloadFailed(
            f"{remote.url} brought {size:,} bytes, expected {remote.size_bytes:,}: {REFUSED}"
        )
    compute = {"SHA-256": sha256_file, "MD5": md5_file, "git blob id": git_blob_id}
    for name, expected in remote.hashes.items():
        found = compute[name](path)
        if found != expected:
            raise DownloadFailed(
                f"{remote.url} brought a file with {name} {found}, expected {expected}: {REFUSED}"
            )


REFUSED = "nothing was kept: the publisher's file or a proxy on the way changed"


def check_pin(path: Path, remote: Remote, target: Path) -> str | None:
    """Hold an unpinned file to what it was when it was first fetched, or record that.

    Args:
        path: the file's bytes.
        target: where it will stand; its pin lies beside it.

    Returns:
        A warning to show where it was recorded now, else None.

    Raises:
        DownloadFailed: it was another file before.
    """
    if remote.hashes:
        return None
    pin_path = target.with_name(f"{target.name}.pin.json")
    now = Pin(
        url=remote.url,
        size_bytes=path.stat().st_size,
        sha256=sha256_file(path),
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    before = _read_pin(pin_path)
    if before is None:
        write_atomic(pin_path, msgspec.json.encode(now))
        return (
            f"no hash of {remote.url} is published: {now.size_bytes:,} bytes with SHA-256"
            f" {now.sha256} were taken on trust and recorded in {pin_path}"
        )
    if before.sha256 != now.sha256:
        raise DownloadFailed(
            f"{remote.url} brought a file with SHA-256 {now.sha256}, but on {before.fetched_at} it"
            f" was {before.sha256}: if the change is meant, delete {pin_path}"
        )
    return None


def _read_pin(path: Path) -> Pin | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pin)
    except (OSError, msgspec.DecodeError) as error:
        raise DownloadFailed(f"{path} cannot be read ({error}): delete it") from None


def _updated(digest: hashlib._Hash, path: Path) -> str:
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def blocks(path: Path) -> Iterable[bytes]:
    """A file's bytes, `BLOCK` at a time."""
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
