"""Unpacking archives that mean harm, or are damaged."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness.errors import DownloadFailed, ResultsError
from harness.fetch import archives
from harness.fetch.archives import extract, extract_member

GOOD = {"VOC/a b.txt": b"first", "VOC/ü/c.txt": b"second"}


def tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as content:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            content.addfile(info, io.BytesIO(data))
        for info in more:
            content.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in files.items():
            content.writestr(name, data)
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def found(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "zip"])
def test_plain_files_are_unpacked(tmp_path, mode):
    path = tmp_path / "archive"
    archive = zipped(path, GOOD) if mode == "zip" else tar(path, GOOD, mode=mode)
    assert extract(archive, tmp_path / "out", quiet=True) == 2
    assert found(tmp_path / "out") == GOOD
    extract_member(archive, "VOC/a b.txt", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == b"first"
    with pytest.raises(DownloadFailed, match=r"holds no VOC/x"):
        extract_member(archive, "VOC/x", tmp_path / "two")


def test_only_what_is_wanted_is_unpacked(tmp_path):
    archive = zipped(tmp_path / "x.zip", GOOD)
    assert extract(archive, tmp_path / "out", wanted=lambda n: "a b" in n, quiet=True) == 1
    assert list(found(tmp_path / "out")) == ["VOC/a b.txt"]


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\..\\out", "C:/out"])
@pytest.mark.parametrize("make", [tar, zipped])
def test_a_name_that_leads_out_is_refused(tmp_path, make, name):
    archive = make(tmp_path / "archive", {name: b"x"})
    with pytest.raises(DownloadFailed, match="leads out of its folder"):
        extract(archive, tmp_path / "deep" / "out", quiet=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_a_link_is_refused_before_anything_is_written_through_it(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        archive = tar(tmp_path / "x.tar", {}, link("a", str(victim), kind))
        with pytest.raises(DownloadFailed, match="'a', which is no plain file"):
            extract(archive, tmp_path / "out", quiet=True)
    info = zipfile.ZipInfo("a")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as content:
        content.writestr(info, str(victim))
    with pytest.raises(DownloadFailed, match="no plain file"):
        extract(tmp_path / "x.zip", tmp_path / "out", quiet=True)
    assert list(victim.iterdir()) == []


def test_a_device_is_refused(tmp_path):
    archive = tar(tmp_path / "x.tar", {}, link("null", "", tarfile.CHRTYPE))
    with pytest.raises(DownloadFailed, match="no plain file"):
        extract(archive, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("mode", ["w:gz", "w", "zip"])
def test_a_damaged_archive_is_named(tmp_path, mode):
    path = tmp_path / "archive"
    files = {"a": os.urandom(100_000), "b": os.urandom(100_000)}
    archive = zipped(path, files) if mode == "zip" else tar(path, files, mode=mode)
    data = bytearray(archive.read_bytes())
    archive.write_bytes(data[:120_000] if mode != "zip" else data[:500] + b"?" * 90 + data[590:])
    with pytest.raises(DownloadFailed, match=r"archive is damaged .*: delete it"):
        extract(archive, tmp_path / "out", quiet=True)


def test_an_archive_larger_than_the_disk_is_said(tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)._replace(free=3)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResultsError, match="needs 5 bytes and 3 are free"):
        extract(tar(tmp_path / "x.tar", GOOD), tmp_path / "out", quiet=True)
