"""Unpack what was fetched: only plain files, only below the folder, nothing half done.

An archive from the network may name ``../../x``, an absolute path, a link that leads out, or a
device. Data sets need none of these, so each is refused, whole archive included.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from harness.errors import DownloadFailed, ResultsError

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip's compression that Python does not know
    RuntimeError,  # a zip with a password
)


class Member(NamedTuple):
    """A plain file in an archive; ``open`` gives its bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def extract(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    quiet: bool = False,
) -> int:
    """Unpack the files of a tar or zip archive that are wanted, below ``folder``.

    ``folder`` should be a staging folder that is renamed when all is there: this leaves what it has
    when it fails.

    Returns:
        The number of files.

    Raises:
        DownloadFailed: a damaged archive, or one with names that lead out, links or devices.
        ResultsError: it cannot be written.
    """
    count = 0
    show = True if quiet else None
    with tqdm(desc=f"unpacking {archive.name}", unit="file", disable=show) as bar:
        try:
            for member in members(archive):
                if wanted(member.name):
                    _write(member, folder / member.name)
                    count += 1
                    bar.update()
        except DAMAGED as error:
            raise DownloadFailed(f"{archive} is damaged ({error}): delete it") from None
    return count


def extract_member(archive: Path, name: str, target: Path) -> None:
    """Unpack one file of an archive to ``target``.

    Raises:
        DownloadFailed: as `extract`, or there is no such file.
        ResultsError: as `extract`.
    """
    try:
        for member in members(archive):
            if member.name == name:
                _write(member, target)
                return
    except DAMAGED as error:
        raise DownloadFailed(f"{archive} is damaged ({error}): delete it") from None
    raise DownloadFailed(f"{archive} holds no {name}: the publisher's archive changed")


def members(archive: Path) -> Iterator[Member]:
    """The plain files of a tar (compressed or not) or zip archive, in its order."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    else:
        yield from _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse(archive, info.filename, "is no plain file")
            if not info.is_dir():
                name = _safe(archive, info.filename)
                yield Member(name, info.file_size, partial(content.open, info))


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as content:
        for info in content:
            if not (info.isreg() or info.isdir()):
                raise _refuse(archive, info.name, "is no plain file")
            if info.isreg():
                name = _safe(archive, info.name)
                yield Member(name, info.size, partial(_opened, content, info))


def _opened(content: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = content.extractfile(info)
    if stream is None:
        raise tarfile.TarError(f"{info.name} has no bytes")
    return stream


def _safe(archive: Path, name: str) -> str:
    """The name, if it stays below the folder that it is unpacked into."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise _refuse(archive, name, "leads out of its folder")
    return str(path)


def _refuse(archive: Path, name: str, why: str) -> DownloadFailed:
    return DownloadFailed(f"{archive} holds '{name}', which {why}: it was not unpacked")


def _write(member: Member, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if member.size > free:
            raise ResultsError(
                f"{target} needs {member.size:,} bytes and {free:,} are free: free space"
            )
        with member.open() as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
    except OSError as error:
        if isinstance(error, DAMAGED):  # gzip's error is an OSError
            raise
        raise ResultsError(
            f"{target} cannot be written ({error.strerror}): free space or choose another folder"
        ) from error
