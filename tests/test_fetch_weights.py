"""The list of published weights, and fetching them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import msgspec
import pytest

from harness import cli, weights
from harness.errors import BadCheckpoint, BadConfig, DownloadFailed, UnknownName
from harness.fetch import published as module
from harness.fetch.published import all_published, published, read_list
from harness.fetch.remote import Remote, git_blob_id, verify
from harness.fetch.weights import fetch_weights, is_fetched
from tests.loopback import Page, serving
from tests.test_fetch_archives import tar

BODY = b"weights" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(url, name="mb2_ssd_lite_voc", **file):
    return msgspec.structs.replace(published(name), file=Remote(url=url, **file))


def known(monkeypatch, *entries):
    table = {**all_published(), **{one.name: one for one in entries}}
    monkeypatch.setattr(module, "read_list", lambda _: table)


def test_every_entry_is_complete():
    for name, one in all_published().items():
        assert one.name == name
        assert one.licence
        assert one.trained_on
        assert one.file.url.startswith(("https://", "http://download.tensorflow.org/"))
        assert bool(one.labels) == (one.kind == "detector")
        assert len(set(one.labels)) == len(one.labels)
    assert {len(one.labels) for one in all_published().values()} == {0, 2, 21, 91}
    coco = all_published()["ssdlite_mobilenet_v2_coco"].labels
    assert (coco[1], coco[13], coco[18], coco[90]) == ("person", "stop sign", "dog", "toothbrush")


def test_the_face_weights_are_the_published_ones(shared):
    for name, file in (("rfb_320_face", "RFB-320"), ("slim_320_face", "slim-320")):
        verify(shared / "data" / "weights" / f"version-{file}.pth", published(name).file)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'rfb_320_face'"):
        published("rfb_320_fase")


def test_a_broken_list_is_named(tmp_path):
    path = tmp_path / "list.yaml"
    for text in ("weights: {a: {model: m}}\nlabel_sets: {}", "weights: 3", "{", ""):
        path.write_text(text)
        read_list.cache_clear()
        with pytest.raises(BadConfig, match=r"list\.yaml is not a list of published weights"):
            read_list(path)


def test_weights_are_fetched_verified_and_found_by_name(cache, monkeypatch, capsys):
    with serving(**{"w.pth": Page(BODY)}) as (url, pages):
        one = entry(f"{url}/w.pth", size_bytes=len(BODY), sha256=SHA256)
        known(monkeypatch, one)
        with pytest.raises(BadCheckpoint, match="run  detbench fetch weights mb2_ssd_lite_voc"):
            weights.find("mb2_ssd_lite", {}, one.name, None)
        assert cli.main(["fetch", "weights", one.name, "--quiet"]) == 0
        assert capsys.readouterr().out.strip() == str(cache / "weights" / one.name / "w.pth")
        assert cli.main(["fetch", "weights", one.name, "--quiet"]) == 0
        assert len(pages["/w.pth"].asked) == 1
    found = weights.find("mb2_ssd_lite", {}, one.name, None)
    assert (found.sha256, found.source) == (SHA256, f"published:{one.name}")
    assert found.labels == one.labels
    names = one.path.with_name("labels.txt")
    names.write_text("background\nhelmet\n")
    with pytest.raises(BadConfig, match=r"names 2 classes, .* was trained for 21"):
        weights.find("mb2_ssd_lite", {}, one.name, names)
    with pytest.raises(BadCheckpoint, match="those of mb2_ssd_lite, not of the detector mb1_ssd"):
        weights.find("mb1_ssd", {}, one.name, None)
    one.path.write_bytes(BODY[:-1])
    with pytest.raises(BadCheckpoint, match="or are damaged"):
        weights.find("mb2_ssd_lite", {}, one.name, None)


def test_a_backbone_is_no_detector(cache):
    with pytest.raises(BadCheckpoint, match="the backbone of mb2_ssd_lite"):
        weights.find("mb2_ssd_lite", {}, "mb2_imagenet", None)


def test_wrong_weights_leave_nothing(cache, monkeypatch, capsys):
    with serving(w=Page(b"other")) as (url, _):
        known(monkeypatch, entry(f"{url}/w", git_blob="0" * 40))
        assert cli.main(["fetch", "weights", "mb2_ssd_lite_voc", "--quiet"]) == 2
    said = capsys.readouterr()
    assert "git blob id" in said.err
    assert "nothing was kept" in said.err
    assert said.out == ""
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_one_file_of_an_archive_is_kept(cache, tmp_path):
    archive = tar(tmp_path / "x.tar.gz", {"a/graph.pb": BODY, "a/other": b"x"}, mode="w:gz")
    wrong = tar(tmp_path / "y.tar.gz", {"a/graph.pb": b"?"}, mode="w:gz")
    pin = {"member": "a/graph.pb", "size_bytes": len(BODY), "sha256": SHA256}
    pages = {"x.tar.gz": Page(archive.read_bytes()), "y.tar.gz": Page(wrong.read_bytes())}
    with serving(**pages) as (url, table):
        with pytest.raises(DownloadFailed, match="brought 1 bytes, expected 7,000"):
            fetch_weights(entry(f"{url}/y.tar.gz", **pin), quiet=True)
        good = entry(f"{url}/x.tar.gz", **pin)
        assert not is_fetched(good)
        for _ in range(2):
            assert fetch_weights(good, quiet=True).read_bytes() == BODY
        assert len(table["/x.tar.gz"].asked) == 1
    left = [path.name for path in cache.rglob("*") if path.is_file() and "pin" not in path.name]
    assert left == ["graph.pb"]


def test_the_list_needs_no_framework():
    code = (
        "import sys; from harness.fetch.published import all_published; all_published();"
        "print({'torch', 'numpy', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout


def test_published_figures_are_labelled(cache, capsys):
    assert cli.main(["list", "weights", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    face = rows["rfb_320_face"]
    assert face["figures"].startswith("published: AP 0.787 easy")
    assert (face["size"], face["licence"]) == ("1.17 MB", "MIT, (c) 2019 linzai")
    assert face["state"] == "detbench fetch weights rfb_320_face"
    assert rows["shipped"]["figures"].startswith("measured by detbench: voc12_map@0.5 0.")


def test_a_git_blob_pin_is_held(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(BODY)
    verify(path, Remote(url="http://x", git_blob=git_blob_id(path)))
    os.truncate(path, 3)
    with pytest.raises(DownloadFailed, match="expected 7,000"):
        verify(path, Remote(url="http://x", size_bytes=len(BODY)))
