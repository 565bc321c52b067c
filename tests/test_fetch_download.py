"""The downloader against a real server that breaks off, lies, stalls and serves other bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import DownloadFailed, ResultsError
from harness.fetch import download as module
from harness.fetch.download import STEP, TRIES, download
from harness.fetch.remote import Remote, git_blob_id
from tests.loopback import Page, serving

BODY = np.random.default_rng(0).bytes(3 * STEP + 12_345)
HALF = len(BODY) // 2


def pinned(url: str, body: bytes = BODY, **other: Any) -> Remote:
    known = {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return Remote(url=url, **{**known, **other})


def fetch(remote: Remote, target: Path, **options: Any) -> tuple[Path, list[float]]:
    waits: list[float] = []
    options = {"timeout_s": 5.0, **options}
    return download(remote, target, quiet=True, sleep=waits.append, **options), waits


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(tmp_path):
    target = tmp_path / "cache" / "file.bin"
    with serving(file=Page(BODY)) as (url, pages):
        for _ in range(2):
            assert fetch(pinned(f"{url}/file"), target) == (target, [])
    assert target.read_bytes() == BODY
    assert pages["/file"].asked == [None]
    assert left(target.parent) == ["file.bin"]


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(BODY[:-1] + b"?")
    with serving(file=Page(BODY)) as (url, _):
        fetch(pinned(f"{url}/file"), target)
    assert target.read_bytes() == BODY


def test_a_connection_that_breaks_off_is_resumed_where_it_broke(tmp_path):
    target = tmp_path / "file.bin"
    page = Page(BODY, breaks=[HALF, STEP])
    with serving(file=page) as (url, _):
        fetch(pinned(f"{url}/file"), target)
    assert target.read_bytes() == BODY
    assert page.asked == [None, f"bytes={HALF}-", f"bytes={HALF + STEP}-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(tmp_path):
    target = tmp_path / "file.bin"
    with serving(file=Page(BODY, breaks=[HALF] + [0] * TRIES)) as (url, pages):
        with pytest.raises(DownloadFailed, match=f"broke off.*goes on from byte {HALF:,}"):
            fetch(pinned(f"{url}/file"), target)
        assert not target.exists()
        assert len(pages["/file"].asked) == 1 + TRIES
        fetch(pinned(f"{url}/file"), target)
        assert pages["/file"].asked[-1] == f"bytes={HALF}-"
    assert target.read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(tmp_path):
    target = tmp_path / "file.bin"
    other = BODY[::-1]
    with serving(file=Page(other, etag='"old"', breaks=[HALF] + [0] * TRIES)) as (url, pages):
        with pytest.raises(DownloadFailed):
            fetch(pinned(f"{url}/file"), target)
        pages["/file"] = Page(BODY, etag='"new"')
        fetch(pinned(f"{url}/file"), target)
    assert target.read_bytes() == BODY


def test_a_server_that_ignores_ranges_starts_again_and_tries_are_bounded(tmp_path):
    target = tmp_path / "file.bin"
    page = Page(BODY, ranges=False, breaks=[HALF, HALF, HALF])
    with serving(file=page) as (url, _):
        fetch(pinned(f"{url}/file"), target)
        assert target.read_bytes() == BODY
        target.unlink()
        page.breaks = [HALF] * 99
        with pytest.raises(DownloadFailed, match="broke off"):
            fetch(pinned(f"{url}/file"), target)
    assert len(page.asked) == 4 + 1 + TRIES


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (Page(BODY[:-1] + b"?"), "SHA-256 .*, expected"),
        (Page(BODY + b"more"), "offers 3,158,077 bytes, expected 3,158,073"),
        (Page(BODY, claims=len(BODY) - 5), "offers 3,158,068 bytes, expected 3,158,073"),
        (Page(BODY, encoding="gzip"), "came compressed"),
        (Page(statuses=[404]), "404 Not Found, the file has moved or was taken down"),
        (Page(statuses=[403]), "403 Forbidden, it does not give the file to this machine"),
        (Page(redirect="ftp://127.0.0.1/x"), "redirects to ftp://"),
    ],
)
def test_a_wrong_file_is_refused_and_none_of_it_kept(tmp_path, page, says):
    target = tmp_path / "file.bin"
    with serving(file=page) as (url, _), pytest.raises(DownloadFailed, match=says):
        fetch(pinned(f"{url}/file"), target)
    assert left(tmp_path) == []
    assert len(page.asked) == 1


def test_a_wrong_file_is_refused_where_the_length_is_not_said_before(tmp_path):
    with serving(file=Page(BODY)) as (url, _):
        for known in ({"git_blob": "0" * 40}, {"md5": "0" * 32}):
            remote = Remote(url=f"{url}/file", **known)
            with pytest.raises(DownloadFailed, match=r"git blob id|MD5"):
                fetch(remote, tmp_path / "file.bin")
    assert left(tmp_path) == []


def test_a_server_that_claims_more_than_it_sends_is_given_up(tmp_path):
    page = Page(BODY, claims=len(BODY) + 10, ranges=False)
    with (
        serving(file=page) as (url, _),
        pytest.raises(DownloadFailed, match=r"broke off at 3,158,073 of 3,158,083 bytes"),
    ):
        fetch(Remote(url=f"{url}/file"), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    assert len(page.asked) == 1 + TRIES


def test_a_busy_server_is_asked_again_with_growing_waits(tmp_path):
    with serving(file=Page(BODY, statuses=[503, 429, 500])) as (url, _):
        _, waits = fetch(pinned(f"{url}/file"), tmp_path / "file.bin")
        assert waits == [2.0, 4.0, 8.0]
    with (
        serving(file=Page(BODY, statuses=[503] * 9)) as (url, _),
        pytest.raises(DownloadFailed, match="503 Service Unavailable"),
    ):
        fetch(pinned(f"{url}/file"), tmp_path / "other.bin")


def test_a_server_that_stalls_is_left(tmp_path):
    page = Page(BODY, breaks=[STEP], stalls_s=0.5)
    with serving(file=page) as (url, _):
        fetch(pinned(f"{url}/file"), tmp_path / "file.bin", timeout_s=0.2)
    assert page.asked == [None, f"bytes={STEP}-"]
    with (
        serving(file=Page(BODY, claims=len(BODY) + 1, stalls_s=0.5)) as (url, _),
        pytest.raises(DownloadFailed, match="no answer in time"),
    ):
        fetch(Remote(url=f"{url}/file"), tmp_path / "other.bin", timeout_s=0.1)


def test_no_network_is_said(tmp_path, monkeypatch):
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadFailed, match=r"the host example\.org cannot be found, perhaps"):
        fetch(Remote(url="http://example.org/file"), tmp_path / "file.bin")


def test_a_port_that_nobody_listens_on_is_said(tmp_path):
    with serving() as (url, _):
        pass
    waits: list[float] = []
    with pytest.raises(DownloadFailed, match=r"the host 127\.0\.0\.1 refuses the connection"):
        download(Remote(url=f"{url}/file"), tmp_path / "file.bin", quiet=True, sleep=waits.append)
    assert waits == []


def test_other_addresses_are_refused(tmp_path):
    with pytest.raises(DownloadFailed, match="neither http nor https"):
        fetch(Remote(url=f"file://{tmp_path}/x"), tmp_path / "file.bin")


def test_a_full_disk_is_said_before_the_first_byte(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with (
        serving(file=Page(BODY)) as (url, _),
        pytest.raises(DownloadFailed, match=r"is full: 3,158,073 more .* 1,000 are free"),
    ):
        fetch(pinned(f"{url}/file"), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_a_disk_that_fills_up_keeps_the_part(tmp_path, monkeypatch):
    def half(*arguments: Any) -> Any:
        yield BODY[:HALF]
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(file=Page(BODY)) as (url, pages):
        with monkeypatch.context() as patch:
            patch.setattr(module, "pieces", half)
            with pytest.raises(DownloadFailed, match=r"is full.*will be resumed"):
                fetch(pinned(f"{url}/file"), tmp_path / "file.bin")
        fetch(pinned(f"{url}/file"), tmp_path / "file.bin")
        assert pages["/file"].asked == [None, f"bytes={HALF}-"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ResultsError, match="cannot be written"):
        fetch(Remote(url="http://127.0.0.1/x"), tmp_path / "file" / "x")


def test_an_unpinned_file_is_recorded_with_a_warning_and_held_to_that(tmp_path, capsys):
    target = tmp_path / "file.bin"
    with serving(file=Page(BODY)) as (url, pages):
        remote = Remote(url=f"{url}/file")
        fetch(remote, target)
        assert "were taken on trust and recorded in" in capsys.readouterr().err
        pin = json.loads((tmp_path / "file.bin.pin.json").read_text())
        assert pin["sha256"] == hashlib.sha256(BODY).hexdigest()
        assert pin["size_bytes"] == len(BODY)
        target.unlink()
        fetch(remote, target)
        assert capsys.readouterr().err == ""
        target.write_bytes(b"other")
        pages["/file"].body = BODY[::-1]
        with pytest.raises(DownloadFailed, match="if the change is meant, delete"):
            fetch(remote, target)
    assert left(tmp_path) == ["file.bin", "file.bin.pin.json"]


def test_two_processes_do_not_write_one_part(tmp_path):
    script = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".file.bin.part.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    try:
        with pytest.raises(DownloadFailed, match="is being fetched by another process"):
            fetch(Remote(url="http://127.0.0.1/x"), tmp_path / "file.bin")
    finally:
        other.communicate(b"")


def test_a_git_blob_id_is_gits(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BODY)
    said = subprocess.run(
        ["git", "hash-object", "--no-filters", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert git_blob_id(path) == said.stdout.strip()
