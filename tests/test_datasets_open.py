"""Data sets by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.datasets import DATASETS, open_dataset, split_path
from harness.errors import BadConfig, UnknownName
from harness.registry import ROOT


@pytest.mark.parametrize(
    ("text", "split", "count"),
    [
        ("shapes", "val", 1_000),
        ("shapes:val", "val", 1_000),
        ("shapes:train", "train", 8_000),
        ("shapes:calibration", "calibration", 512),
        ("shapes:train:20000", "train", 20_000),
    ],
)
def test_shapes(text, split, count):
    data = open_dataset(text)
    assert (data.name, data.split, len(data)) == ("shapes", split, count)


def test_the_limit_takes_the_first_and_at_most_all(tmp_path, monkeypatch):
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path))
    assert len(open_dataset("shapes:val", limit=5_000)) == 1_000
    few = open_dataset("shapes:val", limit=3)
    assert [few.image_id(index) for index in range(len(few))] == [
        "shapes-v1-val-0000000",
        "shapes-v1-val-0000001",
        "shapes-v1-val-0000002",
    ]
    for text in ("shapes:val", f"coco:{tmp_path}", f"voc:{tmp_path}"):
        with pytest.raises(BadConfig, match="expected 1 or more"):
            open_dataset(text, limit=0)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("shpaes:val", UnknownName, "did you mean 'shapes'"),
        ("kitti:/x", UnknownName, "known: coco, images, open-images, shapes, voc"),
        ("", UnknownName, "unknown data set ''"),
        ("shapes:vall", UnknownName, "did you mean 'val'"),
        ("shapes:train:many", BadConfig, "'many' is no count"),
        ("shapes:train:0", BadConfig, "expected 1 to"),
        ("voc", BadConfig, "lacks its path: write voc:/path"),
        ("coco:", BadConfig, "lacks its path"),
        ("coco:/nowhere/at/all:val", BadConfig, "/nowhere/at/all does not exist"),
    ],
)
def test_what_cannot_be_opened_says_why(text, error, says):
    with pytest.raises(error) as caught:
        open_dataset(text)
    assert says in str(caught.value)


def test_a_path_may_hold_colons(tmp_path):
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert split_path(str(odd)) == (odd, None)
    assert split_path(f"{odd}:val") == (odd, "val")
    assert split_path(f"{tmp_path}:val") == (tmp_path, "val")
    assert split_path("relative/x") == (Path("relative/x"), None)


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert split_path("~/data:val") == (tmp_path / "data", "val")


def test_real_data_by_name(shared):
    voc = open_dataset(f"voc:{shared}/data/helmet-voc:train", limit=10)
    assert (voc.name, voc.split, len(voc)) == ("voc", "train", 10)
    coco = open_dataset(f"coco:{shared}/data/coco-val2017-128", limit=7)
    assert (coco.name, coco.split, len(coco)) == ("coco", "all", 7)


def test_names_are_listed_without_loading_a_reader():
    code = (
        "import sys, harness.datasets;"
        "print([m for m in sys.modules if m == 'PIL' or m.startswith('harness.datasets.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.decode().strip() == "[]"
    assert sorted(DATASETS) == ["coco", "images", "open-images", "shapes", "voc"]
