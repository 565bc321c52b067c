"""Drawn scenes on disk: the same as drawn, shared by processes, never trusted when damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.datasets import _shape_cache
from harness.datasets._shape_cache import CHUNK, Chunk, drawing_code
from harness.datasets.shapes import MOST, Shapes
from harness.registry import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_shape_cache, "CHUNK", 4)  # drawing 64 would only take longer
    return tmp_path / "cache" / "datasets" / f"shapes-{drawing_code()}"


@pytest.fixture
def no_drawing(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    return lambda: monkeypatch.setattr("harness.datasets.shapes.scene", refuse)


def same(one: Shapes, other: Shapes, index: int) -> bool:
    pairs = zip(one.truth(index)[:4], other.truth(index)[:4], strict=True)
    equal = all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    pixels = np.array_equal(one.image(index), other.image(index))
    return equal and pixels and one.digest(index) == other.digest(index)


def test_what_is_read_equals_what_is_drawn(folder, no_drawing):
    drawn = Shapes("val", 3)
    expected = [(drawn.image(index), drawn.digest(index)) for index in range(3)]
    assert same(drawn, Shapes("val", 3, cached=True), 2)
    assert [path.name for path in folder.iterdir()] == ["v1-val-0000000.bin"]
    no_drawing()
    again = Shapes("val", 1_000, cached=True)
    for index, (image, digest) in enumerate(expected):
        assert np.array_equal(again.image(index), image)
        assert again.digest(index) == digest
    assert again.image(0).flags.writeable


def test_pixels_that_a_caller_changes_stay_whole_in_the_cache():
    data = Shapes("val", 3, cached=True)
    first = data.image(0)
    first[:] = 0
    assert data.image(0).any()


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "longer", "foreign"])
def test_a_damaged_chunk_is_drawn_again(folder, harm):
    Shapes("val", 2, cached=True).image(0)
    path = next(folder.iterdir())
    good = path.read_bytes()
    bad = {
        "flip": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[: len(good) // 2],
        "empty": b"",
        "longer": good + b"\0",
        "foreign": b"\x89PNG" * 99,
    }[harm]
    path.write_bytes(bad)
    assert same(Shapes("val", 2), Shapes("val", 2, cached=True), 0)
    assert path.read_bytes() == good


def test_a_chunk_with_a_true_hash_and_a_wrong_index_is_refused():
    import hashlib

    body = (2).to_bytes(8, "little") + b"[]"
    with pytest.raises(ValueError, match="damaged"):
        Chunk(hashlib.sha256(body).digest() + body)


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DETBENCH_CACHE", str(tmp_path / "file"))
    assert same(Shapes("val", 2), Shapes("val", 2, cached=True), 1)


def test_a_full_disk_only_costs_time(folder, monkeypatch):
    def full(*_: object) -> None:
        raise _shape_cache.ResultsError("no space left")

    monkeypatch.setattr(_shape_cache, "write_atomic", full)
    data = Shapes("val", 2, cached=True)
    assert same(Shapes("val", 2), data, 1)
    assert list(folder.iterdir()) == []


def test_other_drawing_code_has_another_folder(folder, monkeypatch):
    Shapes("val", 1, cached=True).image(0)
    monkeypatch.setattr(_shape_cache, "drawing_code", lambda: "another")
    Shapes("val", 1, cached=True).image(0)
    assert len(list(folder.parent.iterdir())) == 2


def test_few_chunks_are_open_at_once(monkeypatch):
    monkeypatch.setattr(_shape_cache, "OPEN_CHUNKS", 1)
    data = Shapes("val", 8, cached=True)
    for index in (0, 4, 1):
        assert same(Shapes("val", 8), data, index)
    assert len(data._cache._open) == 1


def test_the_last_chunk_is_whole():
    assert MOST % CHUNK == 0


@pytest.mark.slow
def test_several_processes_at_once_end_with_one_good_file(folder):
    code = (
        "from harness.datasets.shapes import Shapes;"
        "print(Shapes('calibration', 9, cached=True).digest(8))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, env=os.environ.copy()
        )
        for _ in range(3)
    ]
    answers = {child.communicate()[0].decode().strip() for child in running}
    assert answers == {Shapes("calibration").digest(8)}
    assert [path.name for path in folder.iterdir()] == ["v1-calibration-0000000.bin"]
