"""``detbench fetch weights NAME``: the file in the cache, verified."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.errors import DownloadFailed
from harness.fetch.archives import extract_member
from harness.fetch.download import download, publish
from harness.fetch.published import PublishedWeights
from harness.fetch.remote import Remote, check_pin, verify


def fetch_weights(entry: PublishedWeights, *, quiet: bool = False) -> Path:
    """The verified file of ``entry``; it is fetched where it is not in the cache.

    Raises:
        DownloadFailed: it cannot be fetched, or is not what was published.
        ResultsError: the cache cannot be written.
    """
    if entry.file.member is None:
        return download(entry.file, entry.path, quiet=quiet)
    if is_fetched(entry):
        return entry.path
    whole = Remote(url=entry.file.url)
    archive = entry.path.with_name(whole.file_name)
    download(whole, archive, quiet=quiet)
    with tempfile.TemporaryDirectory(dir=entry.path.parent) as folder:
        member = Path(folder) / entry.file.file_name
        extract_member(archive, entry.file.member, member)
        archive.unlink()  # whether it holds the right file or not: nothing wrong is kept
        publish(member, entry.file, entry.path)
    return entry.path


def is_fetched(entry: PublishedWeights) -> bool:
    """Whether the file is in the cache and is what was published, or what was first fetched."""
    if not entry.path.is_file():
        return False
    try:
        verify(entry.path, entry.file)
        check_pin(entry.path, entry.file, entry.path)
    except DownloadFailed:
        return False
    return True
